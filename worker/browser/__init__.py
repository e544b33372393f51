"""Tool `browser`: the program that drives Chromium in the sandbox, and the check of its replies."""
