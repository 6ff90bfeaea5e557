"""Points that show a sign: samples, gradients, populations."""
