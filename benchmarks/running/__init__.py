"""Commands in processes of their own, records, and latency."""
