"""Executor that runs programs and sessions in Jobs of a Kubernetes cluster. `executor` is its entry."""
