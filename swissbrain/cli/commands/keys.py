"""Commands `key new` and `key list`: entries of the API's list of keys. They work on this machine alone."""

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from swissbrain.access import find_access
from swissbrain.cli.access import FINGERPRINT_CHARS, profile
from swissbrain.cli.errors import CommandError
from swissbrain.cli.layout import Column, Rows
from swissbrain.cli.options import Json
from swissbrain.cli.output import print_json, show_table
from swissbrain.cli.screen import line
from swissbrain.cli.terminal import note
from swissbrain.errors import ClientError

KEYS = "SWISSBRAIN_API_KEYS"
SCOPES = ("runs:read", "runs:write", "runs:approve")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@.-]{0,63}")


class KeyEntry(msgspec.Struct, frozen=True):
    """Entry of the API's list of keys; `sha256` is the digest of the token in hexadecimal digits."""

    user: str
    scopes: list[str]
    sha256: str


key = typer.Typer(help="Make tokens and list the API's keys.", no_args_is_help=True)


@key.command()
def new(
    user: Annotated[str, typer.Argument(help="User whose runs the token reaches.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="runs:read, runs:write or runs:approve; all without this option.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token, and its entry for the list in SWISSBRAIN_API_KEYS. Nothing is stored."""
    if not _USER.fullmatch(user):
        raise typer.BadParameter(
            "a user is 1 to 64 letters, digits, '_', '@', '.' and '-', beginning with a letter or digit"
        )
    if unknown := sorted(set(scope or ()) - set(SCOPES)):
        raise typer.BadParameter(f"'{unknown[0]}' is not a scope; scopes are {' and '.join(SCOPES)}")
    token = f"sb_{secrets.token_urlsafe(24)}"
    scopes = list(dict.fromkeys(scope or SCOPES))
    entry = KeyEntry(user, scopes, hashlib.sha256(token.encode()).hexdigest())
    if as_json:
        print_json({"token": token, "entry": entry})
    else:
        typer.echo(f"token  {token}\nentry  {msgspec.json.encode(entry).decode()}")
        note(f"add the entry to the list in {KEYS} and start the API again; the token is not stored anywhere")


@key.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys in SWISSBRAIN_API_KEYS: users, scopes, and the first digits of each token's SHA-256."""
    entries = _entries()
    if as_json:
        print_json(*entries)
        return
    try:
        own = hashlib.sha256(find_access(profile.get()).token.encode("utf-8", "surrogateescape")).hexdigest()
    except ClientError:
        own = ""
    columns = [Column("SHA-256"), Column("user"), Column("scopes"), Column("")]
    show_table(Rows(columns, (_row(entry, own) for entry in entries)))


def _row(entry: KeyEntry, own: str) -> list[Text]:
    yours = Text("the token in use" if entry.sha256 == own else "")
    return [line(entry.sha256[:FINGERPRINT_CHARS]), line(entry.user), line(" ".join(entry.scopes)), yours]


def _entries() -> list[KeyEntry]:
    text, file = os.environ.get(KEYS), os.environ.get(f"{KEYS}_FILE")
    if not text and file:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    if not text:
        raise CommandError(f"neither {KEYS} nor {KEYS}_FILE is set; one of them holds the API's list of keys")
    try:
        return msgspec.json.decode(text, type=list[KeyEntry])
    except (msgspec.DecodeError, UnicodeError):
        raise CommandError(f"{KEYS} is not a JSON list of entries such as those of 'swissbrain key new'") from None
