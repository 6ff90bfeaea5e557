"""Points to feed to a model: the user's, those of validation, one that refutes a result."""
