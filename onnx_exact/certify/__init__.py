"""What can be said for sure of a reduction: how far it deviates, and a proof of every verdict."""
