"""The methods that `benchmarks/peers.py` compares, each at several settings."""
