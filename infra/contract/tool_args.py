"""Parts of the arguments of tools: their base, and what the arguments of several tools have in common."""

import re
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from infra.contract.errors import InvalidInput

Path = Annotated[str, msgspec.Meta(min_length=1, max_length=512, description="Relative path inside the workspace.")]
MAX_NETWORK = 20
_NETWORK_HOST = r"(?:(?:\*\.)?[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\])"
_NETWORK = re.compile(rf"{_NETWORK_HOST}:([0-9]{{1,5}})", re.ASCII)
Network = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=3, max_length=260)], ...],
    msgspec.Meta(
        max_length=MAX_NETWORK,
        description="Hosts that the program may reach through the proxy in its environment, as 'host:port' or "
        "'*.example.org:443', within what the operator allows. By default none.",
    ),
]


class ToolArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of all tool arguments; an unknown field is rejected by name."""

    def check(self, at: str) -> None:
        """Raise InvalidInput for rules that the types cannot express; `at` is the path of the arguments."""


def check_network(entries: Sequence[str], at: str) -> None:
    """Raise InvalidInput for an entry of an argument `network` that is no host with a port."""
    for index, entry in enumerate(entries):
        found = _NETWORK.fullmatch(entry)
        if found is None or not 0 < int(found[1]) < 65536:
            message = (
                f"'{entry}' is not allowed; allowed are a host and a port from 1 to 65535, such as 'pypi.org:443' or "
                "'*.example.org:443', with names in ASCII ('xn--…')"
            )
            raise InvalidInput(message, f"{at}[{index}]")


def check_url(url: str, at: str) -> None:
    """Raise InvalidInput for a URL that no host could be asked for. The message does not repeat it."""
    if any(char <= " " or char in "\\\x7f" or "\ud800" <= char <= "\udfff" for char in url):
        raise InvalidInput("the URL holds a space, a control character or a backslash; encode it as %XX", at)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput("the URL is not valid; allowed is one such as 'https://example.org/page?id=1'", at) from None
    if parts.scheme not in {"http", "https"}:
        raise InvalidInput("the URL must begin with http:// or https://", at)
    if "@" in parts.netloc:
        raise InvalidInput("the URL holds credentials; send them in the header Authorization", at)
    if not parts.hostname or port == 0:
        raise InvalidInput("the URL has no host, or its port is 0", at)
