"""Workspaces and archived logs of runs in S3: the API lists, links and deletes; the worker reads, writes and syncs."""

from infra.workspace.limits import WorkspaceLimits
from infra.workspace.run_files import S3RunFiles
from infra.workspace.workspaces import Workspaces

__all__ = ["S3RunFiles", "WorkspaceLimits", "Workspaces"]
