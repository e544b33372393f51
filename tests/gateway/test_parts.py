"""Unit tests of single parts of the gateway: raw replies, event frames, stream buffers, TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.gateway.connect import connect
from infra.gateway.errors import NotSent
from infra.gateway.raw import RawReader
from infra.gateway.resp import pack
from infra.gateway.settings import parse_target
from infra.gateway.sse import frame
from infra.gateway.stream_buffer import CloseReason, StreamBuffer, StreamMemory
from tests.support.certificates import needs_openssl, new_authority, server_context

lines = st.text(alphabet="abc -+:$*1", max_size=8).map(str.encode)
scalars = st.one_of(
    lines.map(lambda text: b"+" + text + b"\r\n"),
    lines.map(lambda text: b"-" + text + b"\r\n"),
    st.integers().map(lambda number: b":%d\r\n" % number),
    st.binary(max_size=20).map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data)),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"*0\r\n"]),
)
replies = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4).map(lambda rows: b"*%d\r\n%b" % (len(rows), b"".join(rows)))
)


@given(st.lists(replies, min_size=1, max_size=5), st.integers(1, 7))
def test_a_raw_reader_returns_each_reply_whole(expected: list[bytes], step: int) -> None:
    reader = RawReader()
    stream = b"".join(expected)
    found: list[object] = []
    for start in range(0, len(stream), step):
        reader.feed(stream[start : start + step])
        while (reply := reader.gets()) is not False:
            found.append(reply)
    assert found == expected


@pytest.mark.parametrize("data", [b"HTTP/1.1\r\n", b"$x\r\n", b"*1.5\r\n"])
def test_bytes_that_are_no_reply_are_a_protocol_error(data: bytes) -> None:
    reader = RawReader()
    reader.feed(data)
    with pytest.raises(hiredis.ProtocolError):
        reader.gets()


@given(st.text(alphabet="ab:\r\n\0\u2028 ", max_size=20))
def test_a_frame_ends_with_its_only_blank_line(text: str) -> None:
    framed = frame(text).decode()
    assert framed.endswith("\n\n")
    *rows, last, end = framed.split("\n")
    assert (last, end) == ("", "")
    assert all(row.startswith("data: ") and "\r" not in row for row in rows)
    assert "\n".join(row.removeprefix("data: ") for row in rows) == text.replace("\r\n", "\n").replace("\r", "\n")


async def test_a_buffer_takes_a_first_frame_of_any_size_and_is_then_bounded() -> None:
    buffer = StreamBuffer(10, StreamMemory(0))
    buffer.put(b"x" * 100)
    assert await buffer.take() == b"x" * 100
    buffer.put(b"aaaaa")
    buffer.put(b"bbbbb")
    assert await buffer.take() == b"aaaaabbbbb"
    buffer.put(b"aaaaa")
    buffer.put(b"bbbbbb")
    assert buffer.closed.result() is CloseReason.OVERFLOW
    assert await buffer.take() is None


async def test_a_closed_buffer_still_delivers_its_frames() -> None:
    buffer = StreamBuffer(10, StreamMemory(0))
    buffer.put(b"a")
    buffer.close()
    buffer.put(b"late")
    assert buffer.closed.result() is CloseReason.SOURCE_ENDED
    assert await buffer.take() == b"a"
    assert await buffer.take() is None


@needs_openssl
async def test_rediss_accepts_only_a_trusted_certificate_of_the_right_host(tmp_path: Path) -> None:
    new_authority(tmp_path)
    context, authority = server_context(tmp_path, "localhost"), str(tmp_path / "ca.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect(parse_target(f"rediss://localhost:{port}", authority), 5)
        assert await connection.send(pack(["PING"]), 1) == [b"PONG"]
        await connection.close()
        for url, ca_file in ((f"rediss://localhost:{port}", None), (f"rediss://127.0.0.1:{port}", authority)):
            with pytest.raises(NotSent):
                await connect(parse_target(url, ca_file), 5)
