"""Captioners: systems that write about a picture."""
