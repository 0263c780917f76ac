"""Self-supervision: systems that learn from one side alone, pictures or texts, and make their targets themselves."""
