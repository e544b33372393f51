"""Address of the API and token of the user: from the environment, or from the dev stack of the current folder."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swissbrain.errors import ClientError

URL, TOKEN = "SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN"
FOLDER, DEV = Path(".swissbrain"), "dev"
MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Access:
    """Address of an API, a token for it, and the name of the place that both come from."""

    url: str
    token: str = field(repr=False)
    source: str


def find_access() -> Access:
    """Return the access that the environment names, else that of the dev stack of this folder or the nearest above.

    Raises ClientError.
    """
    # Both values come from one source: a token must not be sent to an API that it does not belong to.
    if os.environ.get(URL):
        return _access(os.environ, "the environment")
    for path in env_files(DEV):
        return read_access(path)
    raise ClientError(
        f"{URL} and {TOKEN} are not set, and no 'swissbrain dev' was started in this folder or in one above it"
    )


def read_access(path: Path) -> Access:
    """Return the access in a file such as `.swissbrain/dev.env`. Raises ClientError."""
    return _access(_read(path), str(path))


def _access(variables: Mapping[str, str], source: str) -> Access:
    missing = [name for name in (URL, TOKEN) if not variables.get(name)]
    if missing:
        raise ClientError(f"{missing[0]} is not set in {source}")
    return Access(variables[URL], variables[TOKEN], source)


def env_files(name: str) -> Iterator[Path]:
    """Yield the files `.swissbrain/NAME.env` of this folder and of those above it, the nearest first."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = folder / FOLDER / f"{name}.env"
        try:
            owner = path.stat().st_uid
        except OSError:
            continue
        # In a folder that others can write to, such as /tmp, a file of another user could name another API.
        if not hasattr(os, "getuid") or owner in {os.getuid(), 0}:
            yield path


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_FILE_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ClientError(f"cannot read {path}: {exc}") from None
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
