"""Credentials: API keys, and stream tokens for browsers."""
