"""Address of the API and token of the user: from the environment, a profile, or the dev stack of the current folder."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swissbrain.errors import ClientError

URL, TOKEN = "SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN"
FOLDER, DEV = ".swissbrain", "dev"
MAX_FILE_BYTES = 64 * 1024
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Access:
    """Address of an API, a token for it, and the place that both come from."""

    url: str
    token: str = field(repr=False)
    source: str
    is_dev_stack: bool = False
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All variables of this place, for commands that need more than the API."""


def find_access(profile: str | None = None) -> Access:
    """Return the access of the profile, else of the environment, else of the dev stack of the current folder.

    A profile NAME is the file `.swissbrain/NAME.env` of the current folder or the nearest above it, else
    `~/.config/swissbrain/NAME.env`; the profile of the dev stack is `dev`. Raises ClientError.
    """
    # Both values come from one source: a token must not be sent to an API that it does not belong to.
    if profile is not None:
        return _of_profile(profile)
    if os.environ.get(URL):
        return _access(os.environ, "the environment")
    for path in _files(DEV):
        return _access(_read(path), str(path), is_dev_stack=True)
    missing = f"{URL} is not set" if os.environ.get(TOKEN) else f"{URL} and {TOKEN} are not set"
    raise ClientError(f"{missing}, and no 'swissbrain dev' was started in this folder or above")


def _of_profile(name: str) -> Access:
    if not _PROFILE.fullmatch(name):
        raise ClientError(f"'{name}' is not the name of a profile: letters, digits, '.', '_' and '-'")
    # Of a user without a home folder, as in containers that run as any number, the path stays `~/.config`.
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "swissbrain" / f"{name}.env"  # noqa: PTH111
    for path in (*_files(name), *([config] if config.is_file() else [])):
        return _access(_read(path), str(path), is_dev_stack=name == DEV)
    raise ClientError(f"there is no profile '{name}': neither {FOLDER}/{name}.env here or above, nor {config}")


def _files(name: str) -> Iterator[Path]:
    """Yield the files of this name in `.swissbrain/`, in the current folder and in those above it."""
    try:
        current = Path.cwd()
    except OSError:  # it was removed
        return
    for folder in (current, *current.parents):
        path = folder / FOLDER / f"{name}.env"
        # Above the current folder only the user's own files: in a shared folder such as /tmp, another user's file
        # would send what the user runs to an API of theirs.
        try:
            if path.is_file() and (folder == current or path.stat().st_uid == os.geteuid()):
                yield path
        except OSError:
            continue


def _access(variables: Mapping[str, str], source: str, *, is_dev_stack: bool = False) -> Access:
    # A variable from a file with Windows line ends has a carriage return at its end.
    url, token = (variables.get(name, "").strip() for name in (URL, TOKEN))
    url = url.rstrip("/")
    missing = [name for name, value in ((URL, url), (TOKEN, token)) if not value]
    where = "" if source == "the environment" else f" in {source}"
    if missing:
        raise ClientError(f"{missing[0]} is not set{where}")
    if not url.lower().startswith(("http://", "https://")):
        raise ClientError(f"{URL} must begin with http:// or https://{where}")
    return Access(url, token, source, is_dev_stack, variables)


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_FILE_BYTES).decode("utf-8-sig").splitlines()
    except OSError as exc:
        raise ClientError(f"cannot read {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ClientError(f"cannot read {path}: it is not UTF-8 text; {URL} and {TOKEN} are not set") from None
    # As a shell reads such a file, which is another use of it.
    pairs = (each.strip().removeprefix("export ").partition("=") for each in lines)
    return {name.strip(): _unquoted(value.strip()) for name, _, value in pairs}


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
