"""One try: a POST to the endpoint, and its answer read within all deadlines and bounds."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import httpx

from infra.contract.llm import Delta
from infra.host_limits import raise_if_exhausted
from infra.llm_http.assembly import Assembly
from infra.llm_http.failures import TryFailed, failed_answer
from infra.llm_http.settings import LlmSettings
from infra.llm_http.sse import BOM, EventDecoder, EventTooLong
from infra.proxies import proxy_for
from infra.settings import SettingsError

MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_STREAM_BYTES = 64 * 1024 * 1024
MAX_WHOLE_BYTES = 16 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
AFTER_FINISH_S = 5.0
"""Time for the usage, which follows the end of the reply."""
AFTER_DONE_S = 0.25
"""Time for the end of the answer, after which the connection can be used again."""

_FIELDS = (b":", b"d", b"e", b"i", b"r")
"""First characters of the lines of a stream, such as `data:` and `event:`. No JSON value begins with one of them."""

Answer = AsyncGenerator[bytes, None]
OnDelta = Callable[[Sequence[Delta]], Awaitable[None]]


class Endpoint:
    """Chat completions of one endpoint. Raises SettingsError for a proxy or certificates that cannot be used."""

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings
        self._url = f"{settings.base_url}/chat/completions"
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            # A compressed answer of a few KB may unpack to gigabytes.
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}),
        }
        self._proxy, proxy = proxy_for(self._url)
        """Variable that names the proxy in use; empty without one."""
        try:
            self._client = httpx.AsyncClient(
                # A redirect could lead the key to another host, and turns a POST into a GET.
                follow_redirects=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30.0),
                timeout=httpx.Timeout(None, connect=settings.connect_s),
                proxy=proxy,
                verify=httpx.create_ssl_context(),
                trust_env=False,
            )
        except OSError as exc:  # also the errors of OpenSSL
            raise SettingsError(f"the certificates of SSL_CERT_FILE cannot be read: {exc.strerror or exc}") from None
        except (httpx.InvalidURL, ValueError, ImportError):
            # The address can contain a password, and so can the message of httpx.
            raise SettingsError(f"{self._proxy} is not the address of a proxy that can be used") from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def exchange(self, body: bytes, assembly: Assembly, on_delta: OnDelta, *, stream: bool) -> None:
        """Send the request, and read the answer into `assembly`. Raises TryFailed, HostExhausted.

        Returns after the end of the answer, or shortly after the end of the reply; the caller asks the assembly whether
        the reply is whole.
        """
        deadlines = Deadlines(self._settings, stream=stream)
        try:
            async with self._answer(body, deadlines) as response:
                packets = response.aiter_raw()
                async with aclosing(_within(packets, deadlines)) as answer:
                    if response.status_code != 200:
                        raise failed_answer(
                            response.status_code, response.headers, await _bounded(answer, MAX_ERROR_BYTES)
                        )
                    begin = await _begin(answer)
                    if _is_whole(begin, response):
                        deltas = assembly.add_whole(await _whole(answer, begin))
                        await on_delta(deltas)
                    else:
                        await _read_stream(answer, begin, assembly, on_delta, deadlines)
        except httpx.HTTPError as exc:
            raise_if_exhausted(exc)
            if not assembly.reason:  # a connection lost after the end of the reply takes nothing away from it
                raise TryFailed(_lost(exc, self._proxy)) from None

    @asynccontextmanager
    async def _answer(self, body: bytes, deadlines: "Deadlines") -> AsyncIterator[httpx.Response]:
        request = self._client.build_request("POST", self._url, content=body, headers=self._headers)
        async with deadlines.wait():
            response = await self._client.send(request, stream=True)
        try:
            if response.is_redirect:
                raise TryFailed("the endpoint redirects, which is not followed; correct LLM_BASE_URL", "endpoint")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise TryFailed("the endpoint compresses its answer, which was not asked for", "endpoint")
            yield response
        finally:
            await response.aclose()


class Deadlines:
    """Deadline of each wait for the endpoint; the time in which a receiver handles deltas counts only altogether."""

    def __init__(self, settings: LlmSettings, *, stream: bool) -> None:
        now = asyncio.get_running_loop().time()
        self._settings = settings
        self._end = now + settings.timeout_s
        self._first = now + settings.first_token_s if stream else self._end
        self._begun = False
        self._grace: float | None = None

    def begun(self) -> None:
        """Note that the first event has arrived."""
        self._begun = True

    def finished(self, grace_s: float) -> None:
        """Note that the reply is complete, and what follows may be missed."""
        self._grace = asyncio.get_running_loop().time() + grace_s

    @property
    def complete(self) -> bool:
        """True if nothing that may follow is needed."""
        return self._grace is not None

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        """Bound one wait. Raises TryFailed; TimeoutError if the reply is complete."""
        when, reason = self._end, f"no whole reply within {self._settings.timeout_s:g} s (LLM_TIMEOUT_S)"
        if not self._begun and self._first < when:
            when, reason = (
                self._first,
                f"the reply did not begin within {self._settings.first_token_s:g} s (LLM_FIRST_TOKEN_S)",
            )
        idle = asyncio.get_running_loop().time() + self._settings.idle_s
        if self._begun and idle < when:
            when, reason = idle, f"the endpoint was silent for {self._settings.idle_s:g} s (LLM_IDLE_S)"
        if self._grace is not None:
            when = min(when, self._grace)
        try:
            async with asyncio.timeout_at(when):
                yield
        except TimeoutError:
            if self.complete:
                raise
            raise TryFailed(reason) from None


async def _within(packets: AsyncIterator[bytes], deadlines: Deadlines) -> Answer:
    """Yield packets, each awaited within its deadline; end where the time after a complete reply is over."""
    while True:
        try:
            async with deadlines.wait():
                packet = await anext(packets, None)
        except TimeoutError:
            return
        if packet is None:
            return
        yield packet


async def _begin(answer: Answer) -> bytes:
    """Return the begin of an answer up to the packet with its first visible character, empty if it has none."""
    begin = b""
    async for packet in answer:
        begin += packet
        if begin.removeprefix(BOM).strip() or len(begin) > MAX_ERROR_BYTES:
            break
    return begin


def _is_whole(begin: bytes, response: httpx.Response) -> bool:
    """Return whether an answer is one JSON value, and not a stream. Raises TryFailed for a page of HTML.

    Some endpoints ignore what was asked for, or name another type than they send.
    """
    first = begin.removeprefix(BOM).strip()[:1]
    if first == b"<":
        kind = response.headers.get("content-type", "")
        raise TryFailed(f"the endpoint answers with a page ({kind[:100]}) instead of JSON; is LLM_BASE_URL right?")
    return first == b"{" or (_is_json(response) and first not in _FIELDS)


async def _read_stream(
    answer: Answer, begin: bytes, assembly: Assembly, on_delta: OnDelta, deadlines: Deadlines
) -> None:
    decoder = EventDecoder(MAX_EVENT_BYTES)
    size = len(begin)
    done = bool(begin) and await _read_packet(decoder, begin, assembly, on_delta, deadlines)
    if done and not assembly.reason:
        return
    async for packet in answer:
        size += len(packet)
        if size > MAX_STREAM_BYTES:
            raise TryFailed(f"the answer has more than {MAX_STREAM_BYTES} bytes", "cut")
        if not done:
            done = await _read_packet(decoder, packet, assembly, on_delta, deadlines)
            if done and not assembly.reason:
                return
    if not done:
        await _read_events(list(decoder.end()), assembly, on_delta, deadlines)


async def _read_packet(
    decoder: EventDecoder, packet: bytes, assembly: Assembly, on_delta: OnDelta, deadlines: Deadlines
) -> bool:
    try:
        events = list(decoder.feed(packet))
    except EventTooLong:
        raise TryFailed(f"the answer has an event of more than {MAX_EVENT_BYTES} bytes", "cut") from None
    return await _read_events(events, assembly, on_delta, deadlines)


async def _read_events(events: Sequence[bytes], assembly: Assembly, on_delta: OnDelta, deadlines: Deadlines) -> bool:
    """Add events to the reply; return True after the mark of the last one, `[DONE]`."""
    deltas: list[Delta] = []
    for event in events:
        if event.strip() == b"[DONE]":
            if assembly.reason:
                deadlines.finished(AFTER_DONE_S)
            await on_delta(deltas)
            return True
        deadlines.begun()
        deltas += assembly.add_frame(event)
        if assembly.reason and not deadlines.complete:
            deadlines.finished(AFTER_FINISH_S)
    await on_delta(deltas)
    return False


async def _whole(answer: Answer, begin: bytes) -> bytes:
    data = begin + await _bounded(answer, MAX_WHOLE_BYTES + 1)
    if len(data) > MAX_WHOLE_BYTES:
        raise TryFailed(f"the answer has more than {MAX_WHOLE_BYTES} bytes", "cut")
    return data.removeprefix(BOM)


async def _bounded(answer: Answer, limit: int) -> bytes:
    """Return the answer, at most its first `limit` bytes."""
    parts, size = [], 0
    async for packet in answer:
        parts.append(packet)
        size += len(packet)
        if size >= limit:
            break
    return b"".join(parts)[:limit]


def _is_json(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _lost(exc: httpx.HTTPError, proxy: str) -> str:
    # The text of an error of the library may contain headers, and so the key.
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return f"the endpoint cannot be reached (LLM_BASE_URL{f', through {proxy}' if proxy else ''})"
    if isinstance(exc, httpx.ProxyError):
        return f"the proxy refuses to connect to the endpoint ({proxy})"
    return f"the connection was lost ({type(exc).__name__})"
