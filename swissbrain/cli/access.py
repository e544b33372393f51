"""Address of the API and token of the user: of a profile, or as the client finds them."""

import hashlib
import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from swissbrain import Client
from swissbrain.access import TOKEN, URL, Access, env_files, find_access, read_access
from swissbrain.cli.errors import CommandError

__all__ = ["TOKEN", "URL", "AccessError", "access", "connect", "fingerprint", "is_dev_stack", "profile", "used"]

FINGERPRINT_CHARS = 12
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccessError(CommandError):
    """Profile that does not exist."""


profile: ContextVar[str | None] = ContextVar("profile", default=None)
"""Name given with the option `--profile`."""
used: ContextVar[Access | None] = ContextVar("used", default=None)
"""Access of the current command, for errors to name."""


def fingerprint(token: str) -> str:
    """Return the first digits of a token's SHA-256, which tell tokens apart without revealing them."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:FINGERPRINT_CHARS]


def is_dev_stack(found: Access) -> bool:
    """Return whether the access is that of `swissbrain dev`."""
    return Path(found.source).name == "dev.env"


def connect(notify: Callable[[str], None], **options: float) -> Client:
    """Return a client for the API of the profile, else for the one that the client finds.

    `options`: those of Client. Raises AccessError, ClientError.
    """
    found = access()
    used.set(found)
    return Client(found.url, found.token, notify=notify, **options)


def access() -> Access:
    """Return the address and the token to use. Raises AccessError, ClientError."""
    name = profile.get()
    if name is None:
        return find_access()
    if not _PROFILE.fullmatch(name):
        raise AccessError(f"'{name}' is not the name of a profile, which has only letters, digits, '.', '_' and '-'")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "swissbrain" / f"{name}.env"
    for path in (*env_files(name), *([config] if config.is_file() else [])):
        return read_access(path)
    raise AccessError(f"there is no profile '{name}': neither .swissbrain/{name}.env here or above, nor {config}")
