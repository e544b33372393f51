"""Address of the API and token of the user: from the environment, or from the dev stack of the current folder."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swissbrain.errors import ClientError

URL, TOKEN = "SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN"
DEV_ENV = Path(".swissbrain") / "dev.env"


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
    variables: Mapping[str, str] = os.environ
    source = "the environment"
    # Both values come from one source: a token must not be sent to an API that it does not belong to.
    if not variables.get(URL):
        path = next(_dev_envs(), None)
        if path is None:
            raise ClientError(
                f"{URL} and {TOKEN} are not set, and no 'swissbrain dev' was started in this folder or in one above it"
            )
        variables, source = _read(path), str(path)
    missing = [name for name in (URL, TOKEN) if not variables.get(name)]
    if missing:
        raise ClientError(f"{missing[0]} is not set in {source}")
    return Access(variables[URL], variables[TOKEN], source)


def _dev_envs() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = folder / DEV_ENV
        try:
            owner = path.stat().st_uid
        except OSError:
            continue
        # In a folder that others can write to, such as /tmp, a file of another user could name another API.
        if not hasattr(os, "getuid") or owner in {os.getuid(), 0}:
            yield path


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ClientError(f"cannot read {path}: {exc}") from None
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
