"""ASGI helpers: bounded bodies and disconnects."""

from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from infra.asgi import read_body, wait_for_disconnect

DISCONNECT: Message = {"type": "http.disconnect"}


def scope(content_length: str | None = None) -> Scope:
    headers = [] if content_length is None else [(b"content-length", content_length.encode())]
    return {"type": "http", "headers": headers}


def chunks(*bodies: bytes) -> list[Message]:
    """Return the messages of a complete body."""
    return [
        {"type": "http.request", "body": body, "more_body": number < len(bodies)}
        for number, body in enumerate(bodies, 1)
    ]


def receiver(messages: Sequence[Message]) -> Receive:
    """Return a function that returns the messages one by one, and fails after the last."""
    remaining = iter(messages)

    async def receive() -> Message:
        return next(remaining)

    return receive


async def test_a_body_of_exactly_the_limit_is_returned() -> None:
    receive = receiver(chunks(b"abc", b"", b"de"))
    assert await read_body(scope(), receive, limit_bytes=5, drain_bytes=10) == b"abcde"


async def test_an_oversized_body_is_received_to_its_end_and_discarded() -> None:
    messages = [*chunks(b"abc", b"def", b"ghi"), DISCONNECT]
    receive = receiver(messages)
    assert await read_body(scope(), receive, limit_bytes=5, drain_bytes=10) is None
    assert await receive() == DISCONNECT


async def test_a_body_over_the_drain_limit_is_not_received_to_its_end() -> None:
    messages = chunks(b"abcdef", b"ghijkl", b"m")
    receive = receiver(messages)
    assert await read_body(scope(), receive, limit_bytes=5, drain_bytes=10) is None
    assert await receive() == messages[-1]


@pytest.mark.parametrize("length", ["11", "9" * 5000])
async def test_a_declared_size_over_the_drain_limit_is_rejected_without_receiving(length: str) -> None:
    assert await read_body(scope(length), receiver([]), limit_bytes=5, drain_bytes=10) is None


@pytest.mark.parametrize("length", ["0", "3", "10", "three", ""])
async def test_any_other_declared_size_is_ignored(length: str) -> None:
    assert await read_body(scope(length), receiver(chunks(b"abcd")), limit_bytes=5, drain_bytes=10) == b"abcd"


async def test_an_incomplete_body_raises() -> None:
    receive = receiver([{"type": "http.request", "body": b"abc", "more_body": True}, DISCONNECT])
    with pytest.raises(ClientDisconnect):
        await read_body(scope(), receive, limit_bytes=5, drain_bytes=10)


async def test_a_disconnect_is_awaited_past_other_messages() -> None:
    await wait_for_disconnect(receiver([*chunks(b"abc", b"d"), DISCONNECT]))
