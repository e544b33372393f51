"""Scripted web site on loopback, under names that only the resolver of a test knows."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler
from typing import TypeAlias
from urllib.parse import urlsplit

from tests.support.scripted_http import Request, Wire, read_request

NAME = "site.test"

Page: TypeAlias = bytes | Callable[[Wire], None]


def answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """Return the bytes of an answer; underscores in names of headers become hyphens."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if not {"Content_Length", "Transfer_Encoding"} & {*headers}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Site:
    """Web site. `pages` has the answer of each path; `requests` are those received."""

    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port
        return port

    def at(self, path: str, host: str = NAME) -> str:
        """Return the URL of a path of the site under a name."""
        return f"{urlsplit(self.url).scheme}://{host}:{self.port}{path}"

    def serve(self, path: str, page: Page) -> str:
        """Answer a path; return its URL."""
        self.pages[path] = page
        return self.at(path)

    def handle(self, handler: StreamRequestHandler, ending: threading.Event) -> None:
        """Answer one request of a connection."""
        request = read_request(handler)
        if request is None:
            return
        self.requests.append(request)
        page = self.pages.get(request.target, answer(b"nothing", 404))
        with suppress(OSError):  # the client may have gone
            if callable(page):
                page(Wire(handler.connection, ending))
            else:
                handler.connection.sendall(page)


class Names:
    """Resolver with scripted answers; the last one of a name is repeated."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(script) for name, script in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        script = self._answers.get(host, [["127.0.0.1"]])
        return script.pop(0) if len(script) > 1 else script[0]
