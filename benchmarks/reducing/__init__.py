"""Tables of `reduce`, and what `inflate` puts into networks."""
