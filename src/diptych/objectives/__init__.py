"""One loss per file, pure functions."""
