"""Base of all tools: their context, errors and results, and the execution of programs."""
