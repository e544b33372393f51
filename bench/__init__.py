"""Benchmarks of the whole stack on this machine. `python -m bench` runs them and prints tables."""
