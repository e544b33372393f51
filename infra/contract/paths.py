"""Rules for paths inside a workspace, shared by the API and the worker."""

import unicodedata
from collections.abc import Iterator

from infra.contract.errors import InvalidInput

MAX_PATH_BYTES = 512
MAX_NAME_BYTES = 255
RESERVED = ".run"
"""Top folder for the worker's own files (complete outputs of tools); tools may read it but not write to it."""


def workspace_path(path: str, *, field: str = "path") -> str:
    """Return `path` if it is a plain relative POSIX path; raise InvalidInput if not.

    Allowed: segments of 1 to 255 bytes joined by `/`, 512 bytes in all, no `.` or `..` segment, no control
    character, no backslash. `..` is rejected, never resolved, because object stores
    disagree on its meaning in a key.
    """
    problem = _problem(path)
    if problem:
        raise InvalidInput(f"{problem}; allowed is a relative path such as 'data/table.csv'", field)
    return path


def writable_path(path: str, *, field: str = "path") -> str:
    """Return `path` as `workspace_path` does; raise InvalidInput for the reserved folder `.run` as well."""
    if is_reserved(workspace_path(path, field=field)):
        raise InvalidInput(f"the folder '{RESERVED}' is reserved for the platform's own files", field)
    return path


def is_reserved(path: str) -> bool:
    """Return True for a path in the platform's own folder `.run/`."""
    return path.split("/", 1)[0] == RESERVED


def parents(path: str) -> Iterator[str]:
    """Yield the folders above a path, innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _problem(path: str) -> str | None:
    if not path:
        return "the path is empty"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "the path is not valid Unicode"
    if len(encoded) > MAX_PATH_BYTES:
        return f"the path has {len(encoded)} bytes, at most {MAX_PATH_BYTES} are allowed"
    if path.startswith("/"):
        return "the path is absolute"
    if "\\" in path or any(unicodedata.category(character) == "Cc" for character in path):
        return "the path holds a backslash or a control character"
    for segment in path.split("/"):
        if segment in {"", ".", ".."}:
            return f"the path holds the segment '{segment}'"
        if len(segment.encode()) > MAX_NAME_BYTES:
            return f"the path holds a name of more than {MAX_NAME_BYTES} bytes"
    return None
