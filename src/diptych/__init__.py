"""Diptych: vision-language learning. Align images and texts in one space, then search, classify and serve."""

__version__ = "0.1.0"
