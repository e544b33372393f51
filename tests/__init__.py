"""All tests. CONTRIBUTING.md has a table of the folders: what they test, and when to run them."""
