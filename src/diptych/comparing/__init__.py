"""Comparisons of systems: the same data, the same budget, several seeds."""
