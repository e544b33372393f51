"""Runs, schedules and webhooks in Redis: a class for each side, and one Lua script for each state change."""
