"""Typed arguments of each tool, which the API validates and the worker executes.

The worker's registry has one implementation for each entry of TOOLS; a test holds the two together.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from infra.contract.errors import InvalidInput
from infra.contract.paths import workspace_path, writable_path
from infra.contract.validation import invalid_input

MAX_CONTENT_CHARS = 1_000_000
MAX_SOURCE_CHARS = 200_000
MAX_OFFSET = 2**53 - 1
MAX_TOOL_TIMEOUT_S = 3600.0

Path = Annotated[str, msgspec.Meta(min_length=1, max_length=512, description="Relative path inside the workspace.")]
TimeoutS = Annotated[
    float,
    msgspec.Meta(
        gt=0,
        le=MAX_TOOL_TIMEOUT_S,
        description="Seconds until the program is killed; by default what is left of the step and of the run, but at "
        "most 3600.",
    ),
]


class ToolArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of all tool arguments; an unknown field is rejected by name."""

    def check(self, at: str) -> None:
        """Raise InvalidInput for rules that the types cannot express; `at` is the path of the arguments."""


class FileReadArgs(ToolArgs, frozen=True):
    """Read a text file of the workspace."""

    path: Path
    max_bytes: Annotated[int, msgspec.Meta(ge=1, le=1_000_000, description="Number of bytes to read at most.")] = 65_536
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET, description="Number of bytes to skip before them.")] = 0

    def check(self, at: str) -> None:
        workspace_path(self.path, field=f"{at}.path")


class FileWriteArgs(ToolArgs, frozen=True):
    """Write a file of the workspace, replacing it as a whole."""

    path: Path
    content: Annotated[str, msgspec.Meta(max_length=MAX_CONTENT_CHARS)]
    encoding: Literal["utf-8", "base64"] = "utf-8"

    def check(self, at: str) -> None:
        writable_path(self.path, field=f"{at}.path")


class FileListArgs(ToolArgs, frozen=True):
    """List the files of the workspace, or of one folder in it."""

    path: Annotated[str, msgspec.Meta(max_length=512, description="A folder; empty for the whole workspace.")] = ""

    def check(self, at: str) -> None:
        if self.path:
            workspace_path(self.path, field=f"{at}.path")


class FileDeleteArgs(ToolArgs, frozen=True):
    """Delete a file of the workspace."""

    path: Path

    def check(self, at: str) -> None:
        writable_path(self.path, field=f"{at}.path")


class ShellArgs(ToolArgs, frozen=True):
    """Run a command line with `sh` in the sandbox; its working directory is the workspace."""

    command: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE_CHARS)]
    timeout_s: TimeoutS | UnsetType = UNSET


class CodeArgs(ToolArgs, frozen=True):
    """Run a program in the sandbox; its working directory is the workspace."""

    language: Literal["python", "bash", "node"]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE_CHARS)]
    timeout_s: TimeoutS | UnsetType = UNSET


class MessageArgs(ToolArgs, frozen=True):
    """Log a message for the people who watch the run."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]


TOOLS: Mapping[str, type[ToolArgs]] = {
    "code": CodeArgs,
    "file_delete": FileDeleteArgs,
    "file_list": FileListArgs,
    "file_read": FileReadArgs,
    "file_write": FileWriteArgs,
    "message": MessageArgs,
    "shell": ShellArgs,
}


def parse_args(tool: str, args: Mapping[str, Any], *, at: str) -> ToolArgs:
    """Validate the arguments of a tool; `at` is the path of the step, such as `$.plan[2]`.

    Raises InvalidInput for an unknown tool, a missing, unknown or badly typed field, or a path that is not allowed.
    """
    kind = TOOLS.get(tool)
    if kind is None:
        raise InvalidInput(f"unknown tool '{tool}'; allowed are {', '.join(sorted(TOOLS))}", f"{at}.tool")
    try:
        parsed = msgspec.convert(args, kind)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, kind, at=f"{at}.args") from exc
    parsed.check(f"{at}.args")
    return parsed
