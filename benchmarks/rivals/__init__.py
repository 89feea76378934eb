"""What `benchmarks/peers.py` compares: each way to make a pipeline faster, at several settings."""
