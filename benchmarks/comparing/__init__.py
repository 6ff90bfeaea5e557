"""Contestants and tables of `compare`, and the page of `results`."""
