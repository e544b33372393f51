"""Plain HTTP request: parsed, written again for its host, on a separate connection; the same with the answer."""

import asyncio
from contextlib import suppress

import h11

from infra.egress.call import BytesUsedUp, EgressCall, EgressRefused
from infra.egress.idle import idle_deadline
from infra.egress.peer import HttpPeer, passed_on
from infra.egress.targets import EgressTarget


class BrokenAnswer(Exception):
    """Answer that ended early, after a part of it was passed on."""


async def forward(
    client: HttpPeer,
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    request: h11.Request,
    call: EgressCall,
    target: EgressTarget,
) -> None:
    """Pass on a request with its body, and the answer. Closes the connection to the host.

    Raises EgressRefused if there is no answer, BrokenAnswer, BytesUsedUp, OSError.
    """
    try:
        async with idle_deadline(call.limits.idle_s) as idle:

            def count(sent: int, received: int) -> None:
                idle.touch()
                call.count(target, sent, received)

            await _Forwarding(client, HttpPeer(h11.CLIENT, *streams, count), call, target).run(request)
    except TimeoutError:
        if client.http.our_state is not h11.SEND_RESPONSE:
            raise BrokenAnswer from None
        reason = f"nothing was sent or received for {call.limits.idle_s:g} s"
        raise call.refusal(target, 504, "No answer", reason) from None
    finally:
        streams[1].transport.abort()


class _Forwarding:
    def __init__(self, client: HttpPeer, server: HttpPeer, call: EgressCall, target: EgressTarget) -> None:
        self._client = client
        self._server = server
        self._call = call
        self._target = target

    async def run(self, request: h11.Request) -> None:
        # The header Host of the program is not looked at: the server gets the host of the URL, which was checked.
        host = (b"host", self._target.host_header.encode())
        headers = [host, *passed_on(request.headers, b"host", b"expect"), (b"connection", b"close")]
        try:
            await self._server.send(h11.Request(method=request.method, target=self._target.path, headers=headers))
        except OSError:
            raise self._no_answer() from None
        # Beside the answer, because a server may answer before it has read the body, and read no further.
        body = asyncio.ensure_future(self._pass_body())
        try:
            await self._pass_answer()
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)

    async def _pass_body(self) -> None:
        """Pass on the body of the request. If the client breaks it off, the server must not take it for complete."""
        try:
            while isinstance(event := await self._client.next_event(), h11.Data):
                await self._send_body(event)
            if isinstance(event, h11.EndOfMessage):
                await self._send_body(h11.EndOfMessage())
                return
        except (h11.ProtocolError, OSError, BytesUsedUp):
            pass
        self._server.abort()

    async def _send_body(self, event: h11.Data | h11.EndOfMessage) -> None:
        with suppress(OSError):  # the server may have answered already, and closed
            await self._server.send(event)

    async def _pass_answer(self) -> None:
        try:
            while not isinstance(event := await self._server.next_event(), h11.Response):
                if isinstance(event, h11.ConnectionClosed):
                    raise self._no_answer()
            # Trailers are not passed on: few programs read them, and they can repeat headers.
            await self._client.send(_answer(event))
            while not isinstance(event := await self._server.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.ConnectionClosed):
                    raise BrokenAnswer
                await self._client.send(event)
            await self._client.send(h11.EndOfMessage())
        except (h11.RemoteProtocolError, ConnectionError):
            if self._client.http.our_state is h11.SEND_RESPONSE:
                raise self._no_answer() from None
            raise BrokenAnswer from None

    def _no_answer(self) -> EgressRefused:
        if self._call.is_used_up():
            return self._call.refusal(self._target, 403, "Bytes used up", self._call.bytes_used_up())
        reason = "the server closed the connection without a valid answer"
        return self._call.refusal(self._target, 502, "No valid answer", reason)


def _answer(response: h11.Response) -> h11.Response:
    headers = passed_on(response.headers)
    return h11.Response(status_code=response.status_code, reason=response.reason, headers=headers)
