"""Object keys of runs.

`users/{user_id}/runs/{run_id}/` followed by `files/{fence}-{number}-{random}/{path}`, `kept/{fence}-{number}-{random}`,
or `log/{created_ms}-{first}-{last}-{writer}.ndjson.gz`. The input files that a client uploads have
`files/0-{16 random hex digits}/{path}`, because the first claim has fence 1.
"""

import re

from infra.contract.errors import InvalidInput

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@=+-]{0,127}")


def run_prefix(user_id: str, run_id: str) -> str:
    """Return the common prefix of all keys of a run. Raises InvalidInput for an id that a key cannot contain."""
    for field, value in (("user_id", user_id), ("run_id", run_id)):
        if not _ID.fullmatch(value):
            raise InvalidInput(
                f"the {field} must have 1 to 128 characters, begin with a letter or digit, and contain only letters, "
                "digits and _.@=+-",
                field,
            )
    return f"users/{user_id}/runs/{run_id}/"
