"""Passwords, tokens and keys of one data folder: made once, the same at every start."""

import secrets
from pathlib import Path

import msgspec

from infra.devstack.data_dir import write_private
from infra.devstack.errors import StackError


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them are URL-safe, so they need no quoting anywhere."""

    redis_password: str
    rest_token: str
    s3_access_key: str
    s3_secret_key: str
    api_token: str
    stream_token_key: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))

    def __repr__(self) -> str:
        return "Credentials(…)"


def load_or_create(path: Path) -> Credentials:
    """Those of the file, or new ones. Raises StackError if the file is damaged, OSError."""
    kept = b""
    try:
        kept = path.read_bytes()
        found = msgspec.json.decode(kept, type=Credentials)
    except FileNotFoundError:
        found = _generate()
    except msgspec.DecodeError:
        raise StackError(f"{path} is damaged; restore it, or remove the whole data folder") from None
    # Those of an earlier release lack what was made just now.
    text = msgspec.json.format(msgspec.json.encode(found))
    if text != kept:
        write_private(path, text.decode())
    return found


def _generate() -> Credentials:
    return Credentials(
        redis_password=secrets.token_urlsafe(24),
        rest_token=secrets.token_urlsafe(24),
        s3_access_key=f"SB{secrets.token_hex(9).upper()}",
        s3_secret_key=secrets.token_urlsafe(30),
        api_token=f"sb_{secrets.token_urlsafe(24)}",
    )
