"""Benchmarks against sentence-transformers and transformers: `python experiments/benchmarks/run.py`."""
