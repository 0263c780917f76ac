"""Adapt: systems that name the classes of pictures in a domain whose labels they were never told."""
