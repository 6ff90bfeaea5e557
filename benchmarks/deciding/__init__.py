"""Cases, verdicts and tables of `decide`."""
