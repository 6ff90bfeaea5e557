"""Branch and bound on the input box."""
