"""Towers that turn pixels or words into token features."""
