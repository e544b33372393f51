"""Server-sent events of a subscription, from the parts in which they arrive."""

from collections.abc import AsyncIterator

from infra.contract.errors import StoreUnavailable

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Size of one event. A message is a batch of log events, which is far smaller."""


async def events(parts: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the data of each event that is complete, its lines joined by newlines.

    Lines end with LF or CRLF. Raises StoreUnavailable for an event that is too large or is not UTF-8.
    """
    line = bytearray()
    data: list[bytes] = []
    size = 0
    async for part in parts:
        size += len(part)
        if size > MAX_EVENT_BYTES:
            raise StoreUnavailable(f"an event of a subscription has more than {MAX_EVENT_BYTES} bytes")
        *ended, rest = part.split(b"\n")
        for end in ended:
            line += end
            field = bytes(line).removesuffix(b"\r")
            line.clear()
            if field.startswith(b"data:"):
                data.append(field.removeprefix(b"data:").removeprefix(b" "))
            elif not field:
                event, data, size = b"\n".join(data), [], len(rest)
                if event:
                    yield _text(event)
        line += rest


def _text(event: bytes) -> str:
    try:
        return event.decode()
    except UnicodeDecodeError:
        raise StoreUnavailable("an event of a subscription is not UTF-8") from None
