"""Object keys: `users/{user_id}/runs/{run_id}/` and then `files/{fence}-{number}/{path}`, `kept/{fence}-{number}`, or
`log/{created_ms}-{first}-{last}-{fence}.ndjson.gz`."""

import re

from infra.contract.errors import InvalidInput

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@=+-]{0,127}")


def run_prefix(user_id: str, run_id: str) -> str:
    """What the keys of all objects of a run begin with. Raises InvalidInput for an id that a key cannot hold."""
    for field, value in (("user_id", user_id), ("run_id", run_id)):
        if not _ID.fullmatch(value):
            raise InvalidInput(f"the {field} must be 1 to 128 letters, digits or _.@=+- and begin with one", field)
    return f"users/{user_id}/runs/{run_id}/"
