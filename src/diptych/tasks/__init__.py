"""What to learn from which columns, and how it is judged."""
