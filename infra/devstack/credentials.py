"""Passwords, tokens and keys of one data folder: generated at the first start, reused at each later one."""

import secrets
from pathlib import Path

import msgspec

from infra.devstack.data_dir import write_private
from infra.devstack.errors import StackError


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Credentials of all services. All values are URL-safe and need no quoting."""

    redis_password: str
    rest_token: str
    s3_access_key: str
    s3_secret_key: str
    api_token: str
    stream_token_key: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    qstash_token: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(24))
    qstash_current_signing_key: str = msgspec.field(default_factory=lambda: f"sig_{secrets.token_urlsafe(24)}")
    webhook_key: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    qstash_next_signing_key: str = msgspec.field(default_factory=lambda: f"sig_{secrets.token_urlsafe(24)}")

    def __repr__(self) -> str:
        return "Credentials(…)"


def load_or_create(path: Path) -> Credentials:
    """Read the credentials from the file, or generate and store them. Raises StackError for a damaged file, OSError."""
    stored = b""
    try:
        stored = path.read_bytes()
        found = msgspec.json.decode(stored, type=Credentials)
    except FileNotFoundError:
        found = _generate()
    except msgspec.DecodeError:
        raise StackError(f"{path} is damaged; restore it, or remove the whole data folder") from None
    # A file of an earlier release lacks the newer fields, whose values were generated while decoding: store them too.
    text = msgspec.json.format(msgspec.json.encode(found))
    if text != stored:
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
