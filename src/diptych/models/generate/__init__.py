"""Generate: systems that draw pictures for texts."""
