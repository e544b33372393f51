"""Executor that runs programs in a sandbox on the worker's own host."""

from infra.local_executor.executor import LocalExecutor

__all__ = ["LocalExecutor"]
