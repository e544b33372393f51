"""Executor that runs programs in pods. Not complete: the calls of a pod exist, and no executor that makes pods."""
