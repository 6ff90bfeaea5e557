"""How a result is judged: chains, what is outside of them, outputs."""
