"""Patterns of approval rules for URLs and hosts, which can be written in many ways.

A rule that denies or asks applies to every spelling of what it names. A rule that allows applies only if the URL in its
one spelling matches, part by part: in a pattern such as `https://*.example.org/*`, the first `*` stands for names of
hosts and not for `evil.example/?x`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

import idna

from infra.address_guard import InvalidHost, read_host
from infra.host_patterns import host_port

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_NETWORK_ENTRY = re.compile(r"(.*):(\d{1,5})")


def matches_pattern(pattern: str, text: str) -> bool:
    """Return whether the whole text matches a pattern, in which `*` matches any characters, line ends included."""
    first, *others = pattern.split("*")
    if not others:
        return text == first
    *middle, last = others
    if not text.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(text) - at >= len(last) and text.endswith(last)


def matches_url(pattern: str, url: str, *, allows: bool) -> bool:
    """Return whether a rule with this pattern applies to a URL. `allows`: the rule allows calls.

    A URL whose host cannot be read is denied, and not allowed: a browser may read it.
    """
    parts = _Url.read(url)
    wanted = _with_one_spelling(pattern)
    if allows:
        return parts is not None and any(_fits(wanted, parts, authority) for authority in parts.exact)
    if parts is None or matches_pattern(pattern, url):
        return True
    return any(matches_pattern(wanted, parts.text(authority)) for authority in [*parts.exact, *parts.loose])


def one_network(entries: Sequence[str]) -> list[str]:
    """Return the entries of an argument `network` in their one spelling."""
    found = [(entry, _NETWORK_ENTRY.fullmatch(entry)) for entry in entries]
    return [f"{_host(each[1])}:{int(each[2])}" if each else entry.lower() for entry, each in found]


@dataclass(frozen=True)
class _Url:
    """URL in its one spelling. `rest`: path and query.

    `exact`: the host with its port; a default port is also left out. `loose`: the host alone, and with the characters
    that people read.
    """

    scheme: str
    exact: Sequence[str]
    loose: Sequence[str]
    rest: str

    @classmethod
    def read(cls, url: str) -> "_Url | None":
        """Return the parts of a URL; None if its host cannot be read."""
        try:
            parts = urlsplit(url)
            host = read_host(_ascii(unquote(parts.hostname or "")))
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
        except (ValueError, KeyError, InvalidHost):
            return None
        name = host_port(host, port).removesuffix(f":{port}")
        exact = [f"{name}:{port}", *([name] if port == _DEFAULT_PORTS[parts.scheme] else [])]
        readable = _readable(name)
        query = f"?{_unescaped(parts.query)}" if parts.query else ""
        return cls(
            parts.scheme, exact, [name, readable, f"{readable}:{port}"], _without_dots(_unescaped(parts.path)) + query
        )

    def text(self, authority: str) -> str:
        """Return the URL with one of its authorities."""
        return f"{self.scheme}://{authority}{self.rest}"


def _fits(pattern: str, url: _Url, authority: str) -> bool:
    """Return whether a pattern matches a URL as a whole, and its host matches what stands there in the pattern."""
    if not matches_pattern(pattern, url.text(authority)):
        return False
    scheme, separator, host, slash, path = _split(pattern)
    if not separator and (not slash or host == "*"):
        return not slash or not path.startswith("/")  # `*//host/` would match any host with this path
    if not matches_pattern(host, authority) or (scheme and not matches_pattern(scheme, url.scheme)):
        return False
    return not slash or matches_pattern(f"/{path}", url.rest)


def _with_one_spelling(pattern: str) -> str:
    """Return a pattern whose host and escapes have the spelling of `_Url`."""
    scheme, separator, host, slash, path = _split(pattern)
    if separator and not slash and not host.endswith("*"):
        slash = "/"
    host = host.lower()
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    name, ending = (name, f":{port}") if colon else (host, "")
    if slash:
        name = name.removesuffix(".") if "*" in name else _host(name)
    return f"{scheme.lower()}{separator}{name}{ending}{slash}{_unescaped(path)}"


def _split(pattern: str) -> tuple[str, str, str, str, str]:
    """Return scheme, `://`, host with port, `/` and the rest. The rest may hold another URL."""
    scheme, separator, tail = pattern.partition("://")
    if not separator or "/" in scheme or "?" in scheme:
        scheme, separator, tail = "", "", pattern
    return scheme, separator, *tail.partition("/")


def _host(text: str) -> str:
    try:
        host = read_host(_ascii(text))
    except (InvalidHost, ValueError):
        return text.lower().removesuffix(".")
    return f"[{host}]" if ":" in host else host


def _ascii(host: str) -> str:
    """Return a host in ASCII, as browsers and `http_fetch` read it. Raises ValueError."""
    # Not by the codec of Python, which follows an older standard: it reads `straße.de` as another host, `strasse.de`.
    return host if host.isascii() else idna.encode(host, uts46=True).decode()


def _readable(name: str) -> str:
    try:
        return ".".join(idna.decode(label) if label.startswith("xn--") else label for label in name.split("."))
    except ValueError:
        return name


def _unescaped(text: str) -> str:
    """Return a part of a URL without needless escapes, and with the others in capitals."""

    def plain(escape: re.Match[str]) -> str:
        char = chr(int(escape[1], 16))
        return char if _UNRESERVED.fullmatch(char) else escape[0].upper()

    return _ESCAPE.sub(plain, quote(text, errors="replace", safe="%/?#[]@!$&'()*+,;=:~{}|^`\"<>"))


def _without_dots(path: str) -> str:
    """Return an absolute path without the segments `.` and `..`."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
