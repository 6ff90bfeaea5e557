"""Splitting parts of the input box, compiled by numba; see `subtrees` for its use."""
