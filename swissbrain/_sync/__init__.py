# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""The asynchronous client, and the source of the synchronous one."""
