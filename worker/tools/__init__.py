"""Tools, one module each; `worker/registry.py` lists them."""
