"""Branch and bound: on the input box, and on ReLUs."""
