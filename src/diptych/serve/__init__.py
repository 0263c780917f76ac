"""A trained run as a service: a typed HTTP API, and a web page of its own."""
