"""An exact reference for small chains: linear regions in rational arithmetic, no tolerance."""
