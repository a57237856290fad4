"""Planted faults: does a test fail for every one of them? Run by hand: `python -m tests.mutants`."""
