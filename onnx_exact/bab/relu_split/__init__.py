"""Branch and bound on the signs of ReLUs."""
