"""Systems that answer questions about pictures."""
