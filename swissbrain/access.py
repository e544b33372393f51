"""Where the API is and who we are: from the environment, or from the stack that `swissbrain dev` runs here."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from swissbrain.client import Client

URL, TOKEN = "SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN"
DEV_ENV = Path(".swissbrain") / "dev.env"


class AccessError(Exception):
    """It is not said where the API is; the message is one line that says what to do."""


def connect(notify: Callable[[str], None]) -> Client:
    """A client for the API that the variables name; without them, for the dev stack of this folder.

    Raises AccessError.
    """
    variables: Mapping[str, str] = os.environ
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
