"""Workspaces and archived logs of runs in S3: the API lists, links and deletes; the worker reads, writes and syncs.

`S3RunFiles` is imported when it is first used: it needs what only workers use, and a cold start of the API would pay.
"""

from typing import TYPE_CHECKING, Any

from infra.workspace.limits import WorkspaceLimits
from infra.workspace.workspaces import Workspaces

if TYPE_CHECKING:
    from infra.workspace.run_files import S3RunFiles

__all__ = ["S3RunFiles", "WorkspaceLimits", "Workspaces"]


def __getattr__(name: str) -> Any:
    if name != "S3RunFiles":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from infra.workspace.run_files import S3RunFiles

    return S3RunFiles
