"""Benchmarks on the whole stack of this machine; `python -m bench` prints their tables."""
