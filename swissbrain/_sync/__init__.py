# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""The synchronous client."""
