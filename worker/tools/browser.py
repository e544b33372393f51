"""Tool `browser`: one page in Chromium, which stays open between the calls of a run."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from infra.address_guard import InvalidHost, read_host
from infra.contract.browser import BrowserAction, BrowserArgs, Download, Evaluate, Open, Pdf, Screenshot
from infra.contract.errors import SessionLost
from infra.contract.files import FileChanges
from infra.egress.settings import ALLOW, NetworkSettings
from infra.host_patterns import HostPattern
from worker.browser.program import browser_program
from worker.browser.replies import PageLink, PageReply, decode_reply
from worker.browser.settings import EVALUATE, BrowserSettings
from worker.toolkit.base import Tool, ToolContext, ToolFailed, ToolResult, ToolSession
from worker.toolkit.network import granted

FOLDER = "browser"
"""Folder of files without `save_as`."""
MAX_URL_CHARS = 2048
MARGIN_S = 20.0
"""Time for an answer after the timeout of the action: the page is read, and a busy host is slow."""
START_S = 40.0
"""Time for the browser to start, in the first call."""
_PORTS = {"http": 80, "https": 443}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIXES = {Screenshot: ".png", Pdf: ".pdf"}


class BrowserResult(ToolResult, frozen=True, kw_only=True):
    """State of the page after an action.

    `text` is the begin of its visible text, and with `text_truncated` there is more. `notes`: what happened beside the
    action, such as dialogs. `pages`: number of open pages. `path` is the file that the action has stored. `value` is
    the value of a script. A page can put anything into title, text, links, notes and value.
    """

    url: str
    title: str
    pages: int
    text: str | None = None
    text_truncated: bool = False
    links: Sequence[PageLink] | None = None
    notes: Sequence[str] = ()
    value: str | None = None
    path: str | None = None
    content_type: str | None = None
    size_bytes: int | None = None


def tool(settings: BrowserSettings, network: NetworkSettings) -> Tool:
    """Return the tool for the hosts that programs may reach.

    Every call may be repeated after a crash: the browser ends with its worker, so a repeated click finds no page and
    fails. A repeated `open` opens the page again.
    """
    ready = network.allows_any and settings.is_installed
    return Tool("browser", BrowserArgs, BrowserTool(settings, network).run, idempotent=True, ready=ready)


class BrowserTool:
    """Function of the tool, with its settings."""

    def __init__(self, settings: BrowserSettings, network: NetworkSettings) -> None:
        self._settings = settings
        self._network = network

    async def run(self, args: BrowserArgs, context: ToolContext) -> BrowserResult:
        """Perform one action.

        Raises ToolFailed with the code `browser_failed`, `timeout`, `session_lost`, `no_page`, `network_not_allowed`,
        `evaluate_not_allowed` or `too_large`; LimitExceeded, ExecutorUnavailable.
        """
        action = args.chosen()
        if isinstance(action, Evaluate) and not self._settings.evaluate:
            message = f"this worker evaluates no scripts in pages; its setting {EVALUATE} allows that"
            raise ToolFailed("evaluate_not_allowed", message)
        started = await self._ensure_session(action, context.session)
        reply, file = await _ask(action, context.session, started=started)
        if reply.url.startswith(("http://", "https://")):
            context.session.note = reply.url[:MAX_URL_CHARS]
        if reply.error == "session_lost":
            await context.session.close()
            raise _lost(context.session, reply.message)
        result = _result(reply)
        if reply.error:
            raise ToolFailed(reply.error, _with_notes(reply), result)
        if isinstance(action, Screenshot | Pdf | Download):
            result = await _stored(action, context, reply, file, result)
        await context.output("stdout", f"{result.url}{f', stored as {result.path}' if result.path else ''}")
        return result

    async def _ensure_session(self, action: BrowserAction, session: ToolSession) -> bool:
        """Start a browser if `action` opens a page and there is none, or one with another network; return whether.

        Raises ToolFailed if there is none and the action needs one.
        """
        program = session.program
        if isinstance(action, Open):
            entries = tuple(self._network.entries) if action.network is None else granted(action.network, self._network)
            _check_host(action.url, entries)
            wanted = browser_program(self._settings, entries)
            if wanted == program:
                return False
            await session.open(wanted)
            return True
        if program is None:
            raise (
                _lost(session, "the worker that kept it was lost, or the run has waited")
                if session.note
                else (ToolFailed("no_page", "no page is open in this run; call the action `open` first"))
            )
        if isinstance(action, Download) and action.url:
            _check_host(action.url, program.network)
        return False


def _check_host(url: str, entries: Sequence[str]) -> None:
    """Raise ToolFailed if the host of a URL is none of the entries: the proxy would refuse it with less of a reason."""
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    try:
        host = read_host(parts.hostname or "")
    except InvalidHost as exc:
        raise ToolFailed("network_not_allowed", f"the host of the URL cannot be used: {exc}") from None
    if not any(HostPattern.parse(entry).matches(host, port) for entry in entries):
        allowed = ", ".join(entries)[:500] or "nothing"
        message = f"'{host}:{port}' may not be opened; allowed are {allowed} ({ALLOW} of the worker, or `network`)"
        raise ToolFailed("network_not_allowed", message)


async def _ask(action: BrowserAction, session: ToolSession, *, started: bool) -> tuple[PageReply, bytes]:
    request = structs.replace(action, network=None) if isinstance(action, Open) else action
    patience_s = action.timeout_s + MARGIN_S + (START_S if started else 0)
    try:
        return decode_reply(await session.ask(msgspec.json.encode(request), patience_s))
    except SessionLost as exc:
        await session.close()
        raise _lost(session, str(exc)) from exc


def _lost(session: ToolSession, reason: str) -> ToolFailed:
    last = f" the last page was {session.note};" if session.note else ""
    return ToolFailed(
        "session_lost",
        f"the browser session is lost: {reason};{last} what the page held is gone, and an action that was under way "
        "may have had its effect or not. Call the action `open` again; repeat a plan with a fork from its `open` step",
    )


def _result(reply: PageReply) -> BrowserResult:
    return BrowserResult(
        url=reply.url[:MAX_URL_CHARS],
        title=reply.title,
        pages=reply.pages,
        text=reply.text or None,
        text_truncated=reply.text_truncated,
        links=reply.links,
        notes=reply.notes,
        value=reply.value,
        content_type=reply.content_type or None,
    )


def _with_notes(reply: PageReply) -> str:
    notes = f" ({'; '.join(reply.notes[:3])})" if reply.notes else ""
    return f"{reply.message}{notes}; the page is {reply.url[:MAX_URL_CHARS]}"


async def _stored(
    action: Screenshot | Pdf | Download, context: ToolContext, reply: PageReply, file: bytes, result: BrowserResult
) -> BrowserResult:
    """Store the file of an action, and return the result with its path."""
    stored = await context.files.write(action.save_as or _path(action, context.call, reply.file_name), file)
    context.changed(FileChanges(written=[stored], deleted=[], skipped=[]))
    return structs.replace(result, path=stored.path, size_bytes=stored.size_bytes)


def _path(action: Screenshot | Pdf | Download, call: str, offered: str) -> str:
    """Return the path of a file without `save_as`. The name that a page offers is not to be trusted."""
    name = _UNSAFE.sub("-", call)
    if not isinstance(action, Download):
        return f"{FOLDER}/{name}{_SUFFIXES[type(action)]}"
    given = _UNSAFE.sub("-", PurePosixPath(offered.replace("\\", "/")).name).strip("._-")[-80:].lstrip("._-")
    return f"{FOLDER}/{name}-{given or 'download'}"
