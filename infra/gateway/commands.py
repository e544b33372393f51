"""Parse an HTTP request into commands: the JSON form and the path form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from infra.gateway.errors import BatchTooLong, MalformedRequest
from infra.gateway.json_text import LARGE_BYTES, count_exceeds, replace_half_characters, simple_elements
from infra.gateway.pacing import PACED_COMMANDS, Pacer

Command = list[bytes]


def _float_text(text: str) -> msgspec.Raw:
    # Keep the digits as sent: a conversion to float would turn 1.10 into 1.1.
    return msgspec.Raw(text.encode())


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=_float_text)
_rows_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[msgspec.Raw])


class _Row(msgspec.Struct, array_like=True):
    """Any array. Its decoder makes no objects of the elements, and fails at the first value that is no array."""


_row_types_decoder = msgspec.json.Decoder(list[_Row])

_FEW = 128
_few_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "_FewElements",
        [(f"element_{number}", msgspec.Raw, msgspec.Raw()) for number in range(_FEW)],
        array_like=True,
        forbid_unknown_fields=True,
    )
)
"""Decoder of an array of at most so many elements. It makes no objects of what they hold, and fails early if there are
more elements."""

_NO_JSON = "ERR the request body is not valid JSON"
_NO_BATCH = "ERR the request body must be a non-empty JSON array of commands"

MAX_WORDS = 1024 * 1024
"""Words of one command, its name included: the limit of Redis before version 7. Each takes far more memory here than in
the body of the request."""

_ARGUMENTS = 1000
"""Arguments that are converted without a pause."""


async def from_json(body: bytes, pacer: Pacer) -> Command:
    """Parse `["SET", "key", 1]`. Raises `MalformedRequest`."""
    value = await _value(body, pacer)
    _check_command(value, "the request body")
    if len(value) <= _ARGUMENTS:
        return [_argument(element) for element in value]
    return await _arguments(value, pacer)


async def batch_from_json(body: bytes, max_commands: int, pacer: Pacer) -> list[Command]:
    """Parse `[["SET", "key", 1], ["GET", "key"]]`. Raises `MalformedRequest`, or `BatchTooLong`."""
    if await count_exceeds(body, max_commands, pacer):
        raise BatchTooLong(_too_long(max_commands))
    rows = await (_decode(_decoder, body, pacer) if len(body) <= LARGE_BYTES else _rows(body, pacer))
    if not isinstance(rows, list) or not rows:
        raise MalformedRequest(_NO_BATCH)
    if len(rows) > max_commands:
        raise BatchTooLong(_too_long(max_commands))
    small = len(body) <= LARGE_BYTES
    batch: list[Command] = []
    for number, row in enumerate(rows, 1):
        value = row if small else await _value(bytes(row), pacer)
        _check_command(value, f"command {number}")
        if len(value) <= _ARGUMENTS:
            batch.append([_argument(element) for element in value])
        else:
            batch.append(await _arguments(value, pacer))
        if number % PACED_COMMANDS == 0 and pacer.due:
            await pacer.pause()
    return batch


def _too_long(max_commands: int) -> str:
    return f"ERR max pipeline size exceeded. Limit: {max_commands} commands in one request (GATEWAY_MAX_BATCH_COMMANDS)"


async def _rows(body: bytes, pacer: Pacer) -> Any:
    """Return the elements of a large array of arrays, undecoded."""
    try:
        _row_types_decoder.decode(body)
    except msgspec.ValidationError as exc:  # found before there is an object for each of millions of numbers
        raise MalformedRequest(_NO_BATCH) from exc
    except (ValueError, RecursionError):
        body = await replace_half_characters(body, pacer)
        await _decode(_row_types_decoder, body, pacer)
    if pacer.due:
        await pacer.pause()
    return await _decode(_rows_decoder, body, pacer)


async def _value(text: bytes, pacer: Pacer) -> Any:
    """Decode a value, in slices if it is large."""
    return await (_decode(_decoder, text, pacer) if len(text) <= LARGE_BYTES else _elements(text, pacer))


async def _elements(body: bytes, pacer: Pacer) -> Any:
    """Decode a large array, in slices if it has a simple form."""
    elements: list[object] = []
    position = 0
    async for end, group in simple_elements(body, pacer):
        elements += await _decode(_decoder, group, pacer)
        position = end
        if len(elements) > MAX_WORDS:
            return elements  # enough to be rejected
    if not elements:
        return await _few_elements(body, pacer)
    rest = await _few_elements(b"[" + body[position:], pacer)
    if not isinstance(rest, list) or not rest:  # a comma came before
        raise MalformedRequest(_NO_JSON)
    return elements + rest


async def _few_elements(text: bytes, pacer: Pacer) -> Any:
    """Decode a large array; one of few elements without making objects of what large lists and objects hold."""
    try:
        try:
            few = _few_decoder.decode(text)
        except msgspec.DecodeError as exc:
            if isinstance(exc, msgspec.ValidationError):
                raise
            text = await replace_half_characters(text, pacer)
            few = _few_decoder.decode(text)
    except (ValueError, RecursionError):  # many elements, not an array, or not JSON
        return await _decode(_decoder, text, pacer)
    values: list[object] = []
    for raw in map(bytes, msgspec.structs.astuple(few)):
        if not raw:
            break
        if pacer.due:
            await pacer.pause()
        if raw[:1] not in b"[{":
            values.append(await _decode(_decoder, raw, pacer))
        elif len(raw) <= LARGE_BYTES:  # the same text as in a small request, whatever the other elements are
            values.append(msgspec.Raw(_argument(await _decode(_decoder, raw, pacer))))
        else:
            text = raw.decode("utf-8", "replace").encode()
            values.append(msgspec.Raw(msgspec.json.format(text, indent=-1)))
    return values


async def _decode(decoder: msgspec.json.Decoder[Any], text: bytes | msgspec.Raw, pacer: Pacer) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError as exc:
        raise MalformedRequest("ERR the request body is nested too deeply") from exc
    except ValueError as exc:
        failure = exc
    try:
        return decoder.decode(await replace_half_characters(bytes(text), pacer))
    except (ValueError, RecursionError):
        raise MalformedRequest(_NO_JSON) from failure


def _check_command(value: Any, where: str) -> None:
    """Raise `MalformedRequest` unless the value is a list that begins with the name of a command."""
    if not isinstance(value, list) or not value:
        raise MalformedRequest(f"ERR {where} must be a non-empty JSON array: a command name and its arguments")
    if not isinstance(value[0], str) or not value[0]:
        raise MalformedRequest(f"ERR {where} must begin with the name of a command")
    if len(value) > MAX_WORDS:
        raise MalformedRequest(f"ERR {where} has more than {MAX_WORDS} words; send them in several commands")


async def _arguments(values: list[object], pacer: Pacer) -> Command:
    command: Command = []
    for start in range(0, len(values), _ARGUMENTS):
        command += [_argument(element) for element in values[start : start + _ARGUMENTS]]
        if pacer.due:
            await pacer.pause()
    return command


def _argument(value: object) -> bytes:
    """Return a string as it is, anything else as its JSON text: numbers are decimal, null is `null`."""
    if isinstance(value, str):
        return value.encode()
    return msgspec.json.encode(value)


def split_path(raw_path: bytes) -> list[bytes]:
    """Return the segments of a path, still percent-encoded; `/` has none."""
    path = raw_path.lstrip(b"/")
    return path.split(b"/") if path else []


def from_path(segments: Sequence[bytes], body: bytes, query: Sequence[tuple[bytes, bytes]]) -> Command:
    """Parse `/set/key?EX=100` with the value as body: path segments, then body, then query parameters.

    Raises `MalformedRequest`.
    """
    command = [unquote_to_bytes(segment) for segment in segments]
    if not command or not command[0]:
        raise MalformedRequest("ERR the path names no command")
    if body:
        command.append(body)
    for name, value in query:
        command.append(name)
        if value:
            command.append(value)
    return command


def split_query(query_string: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Return the parameters in order without `_token`, and the value of `_token` (None if it is absent)."""
    token: bytes | None = None
    parameters: list[tuple[bytes, bytes]] = []
    for part in query_string.split(b"&"):
        if not part:
            continue
        name, _, value = (unquote_to_bytes(text) for text in part.replace(b"+", b" ").partition(b"="))
        if name == b"_token":
            token = value
        else:
            parameters.append((name, value))
    return parameters, token
