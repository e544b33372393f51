"""Tool `http_fetch`: fetches a URL into a file of the workspace, and returns the text of pages."""

import asyncio
import mimetypes
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import UNSET

from infra.address_guard import AddressGuard
from infra.contract.files import FileChanges
from infra.contract.tools import HttpFetchArgs
from infra.host_limits import translate_exhaustion
from worker.fetch.decoding import MAX_TEXT_BYTES, clipped, decoded, is_html, media_type
from worker.fetch.html_text import MAX_HTML_CHARS, html_text
from worker.fetch.settings import HOSTS, FetchSettings
from worker.run.tool_failures import CallTime
from worker.toolkit.base import Tool, ToolContext, ToolFailed, ToolResult

if TYPE_CHECKING:
    from worker.fetch.fetcher import Fetched, Fetcher

FOLDER = "fetched"
"""Folder of bodies without `save_as`."""

MAX_PLAIN_BYTES = 4 * MAX_TEXT_BYTES
"""Bytes of a body that are decoded, unless it is a page; enough for the text in every charset."""

_SUFFIXES = {"application/json": ".json", "text/html": ".html", "text/plain": ".txt", "text/xml": ".xml"}
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)
_GUESS = mimetypes.MimeTypes()
"""Types that the standard library knows, without those of the host's files."""


class HttpFetchResult(ToolResult, frozen=True, kw_only=True):
    """Answer of any status.

    `url` is the one that answered, after redirects. `size_bytes` is the size of the body, uncompressed; after HEAD, the
    size that the server announces. `path` is the file with the body; None after HEAD and for an empty body. `text` is
    the begin of the body as text, of a page without its markup; None if the body is no text. With `text_truncated`
    there is more of it.
    """

    status: int
    url: str
    content_type: str
    size_bytes: int
    path: str | None = None
    text: str | None = None
    text_truncated: bool = False


def tool(settings: FetchSettings) -> Tool:
    """Return the tool for the hosts of the settings."""
    function = HttpFetch(settings).run
    return Tool("http_fetch", HttpFetchArgs, function, idempotent=_only_reads, ready=settings.allows_any)


TIMEOUT = "the answer was not complete after {:g} s (`timeout_s`)"


class HttpFetch:
    """Function of the tool, with its settings."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings

    async def run(self, args: HttpFetchArgs, context: ToolContext) -> HttpFetchResult:
        """Fetch a URL.

        Raises ToolFailed with the code `fetch_not_allowed`, `address_not_allowed`, `fetch_failed`, `too_large` or
        `timeout`; LimitExceeded.
        """
        if not self._settings.allows_any:
            message = f"this worker may fetch from no host; its setting {HOSTS} lists those that it may fetch from"
            raise ToolFailed("fetch_not_allowed", message)
        fetched = await self._fetch(args)
        path = await _save(args, context, fetched)
        text, truncated = await _text(fetched)
        size = len(fetched.body) if args.method != "HEAD" else fetched.announced or 0
        to = f", stored as {path}" if path else ""
        await context.output("stdout", f"{fetched.status} {fetched.content_type or 'no type'}, {size} bytes{to}")
        return HttpFetchResult(
            status=fetched.status,
            url=fetched.url,
            content_type=fetched.content_type,
            size_bytes=size,
            path=path,
            text=text,
            text_truncated=truncated,
        )

    @cached_property
    def _fetcher(self) -> "Fetcher":
        # A worker that fetches nothing does not pay for the import.
        from worker.fetch.fetcher import Fetcher

        return Fetcher(self._settings, AddressGuard(self._settings.private_hosts))

    async def _fetch(self, args: HttpFetchArgs) -> "Fetched":
        body = None if args.body is UNSET else args.body.encode()
        headers = args.headers if body is None else {"content-type": "text/plain; charset=utf-8", **args.headers}
        async with CallTime(args.timeout_s).limit(TIMEOUT):
            return await self._fetcher.fetch(args.method, args.url, headers, body)


def _only_reads(args: Mapping[str, Any]) -> bool:
    return args.get("method", "GET") in ("GET", "HEAD")


async def _save(args: HttpFetchArgs, context: ToolContext, fetched: "Fetched") -> str | None:
    """Store the body as a file; return its path, or None if there is none."""
    if args.method == "HEAD" or not (fetched.body or args.save_as):
        return None
    name = re.sub(r"[^A-Za-z0-9._-]", "-", context.call)
    path = args.save_as or f"{FOLDER}/{name}{_suffix(fetched)}"
    stored = await context.files.write(path, fetched.body)
    context.changed(FileChanges(written=[stored], deleted=[], skipped=[]))
    return stored.path


def _suffix(fetched: "Fetched") -> str:
    """Return the suffix for the type of the body, or the suffix of the URL."""
    kind = media_type(fetched.content_type)
    known = _SUFFIXES.get(kind) or _GUESS.guess_extension(kind)
    if known and kind != "application/octet-stream":
        return known
    named = PurePosixPath(urlsplit(fetched.url).path).suffix.lower()
    return named if _SUFFIX.fullmatch(named) else ".bin"


async def _text(fetched: "Fetched") -> tuple[str | None, bool]:
    """Return the begin of the text, and whether there is more; None if the body is no text."""
    if not fetched.body:
        return None, False
    if not is_html(fetched.body, fetched.content_type):
        return _clipped(fetched, MAX_PLAIN_BYTES, None)
    # A large page takes a second of processor time, in which the loop must renew leases.
    with translate_exhaustion():
        return await asyncio.to_thread(_clipped, fetched, MAX_HTML_CHARS, fetched.url)


def _clipped(fetched: "Fetched", max_bytes: int, page_url: str | None) -> tuple[str | None, bool]:
    text = decoded(fetched.body, fetched.content_type, max_bytes)
    if text is None:
        return None, False
    if page_url:
        text = html_text(text, page_url, MAX_TEXT_BYTES + 1)
    begin, truncated = clipped(text)
    return begin, truncated or len(fetched.body) > max_bytes
