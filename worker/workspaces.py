"""What the worker needs of the workspaces; `infra.workspace` provides it."""

from collections.abc import Mapping
from typing import Protocol

from infra.contract.models import FileEntry
from infra.contract.ports import RunFiles


class Workspaces(Protocol):
    """Gives the workspace of a run."""

    def run(self, user_id: str, run_id: str, fence: int, files: Mapping[str, FileEntry]) -> RunFiles:
        """The files of one claimed run, whose record names `files`."""
        ...
