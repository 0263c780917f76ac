"""Scores from predictions; no model inside."""
