"""The one loop, for every system, on one process or many."""
