"""Few-shot use of any aligned model: k pictures a class, several methods, one honest protocol (`protocol.few_shot`)."""
