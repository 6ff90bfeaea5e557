"""Looks for a difference between two models where no certificate says why there is none."""
