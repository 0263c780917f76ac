"""Words: systems that learn one vector for each word."""
