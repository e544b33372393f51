"""Address of the API and token of the user: from the environment, or from the dev stack of the current folder."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from swissbrain import Client
from swissbrain.cli.errors import CommandError

URL, TOKEN = "SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN"
DEV_ENV = Path(".swissbrain") / "dev.env"


class AccessError(CommandError):
    """Missing address of the API or missing token."""


def connect(notify: Callable[[str], None]) -> Client:
    """Return a client for the API that the environment names, else for the dev stack of the current folder.

    Raises AccessError.
    """
    variables: Mapping[str, str] = os.environ
    # Both values come from one source: a token must not be sent to an API that it does not belong to.
    if not variables.get(URL):
        variables = _dev_env()
    missing = [name for name in (URL, TOKEN) if not variables.get(name)]
    if missing:
        raise AccessError(f"{missing[0]} is not set")
    return Client(variables[URL], variables[TOKEN], notify=notify)


def _dev_env() -> dict[str, str]:
    try:
        lines = DEV_ENV.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise AccessError(
            f"{URL} and {TOKEN} are not set, and no 'swissbrain dev' was started in this folder"
        ) from None
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
