"""Commands of the client, one module for each group of commands."""
