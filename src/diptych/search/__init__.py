"""Vectors on disk and nearest neighbours; no model inside."""
