"""Layers without an opinion."""
