"""The rule for a path inside a workspace, shared by the API and the worker."""

import unicodedata

from infra.contract.errors import InvalidInput

MAX_PATH_BYTES = 512
MAX_NAME_BYTES = 255
RESERVED = ".run"
"""Top folder that the worker itself fills (full outputs of tools); tools may read but not write it."""


def workspace_path(path: str, *, field: str = "path") -> str:
    """Return `path` if it is a plain relative POSIX path, else raise InvalidInput.

    Allowed: segments of 1 to 255 bytes joined by `/`, 512 bytes in all, no `.` or `..` segment, no control
    character, no backslash. Object stores disagree on what `..` in a key means, so it is refused, never resolved.
    """
    problem = _problem(path)
    if problem:
        raise InvalidInput(f"{problem}; allowed is a relative path such as 'data/table.csv'", field)
    return path


def writable_path(path: str, *, field: str = "path") -> str:
    """Like `workspace_path`, and refuses the reserved folder `.run`."""
    if workspace_path(path, field=field).split("/", 1)[0] == RESERVED:
        raise InvalidInput(f"the folder '{RESERVED}' is reserved for the platform's own files", field)
    return path


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
