"""Connection to the target of a request, at an address that was checked."""

import asyncio
import os

from infra.egress.call import EgressCall
from infra.egress.peer import CHUNK_BYTES
from infra.egress.targets import EgressTarget


async def dial(call: EgressCall, target: EgressTarget) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address of the target that can be reached. Raises EgressRefused."""
    reason = f"no connection within {call.limits.connect_s:g} s"
    # Not to the name, because a second look-up could give another address.
    for address in await call.addresses(target):
        try:
            async with asyncio.timeout(call.limits.connect_s):
                return await asyncio.open_connection(str(address), target.port, limit=CHUNK_BYTES)
        except TimeoutError:
            continue
        except OSError as exc:
            reason = f"no connection: {os.strerror(exc.errno) if exc.errno else 'refused'}"
    raise call.refusal(target, 502, "Cannot connect", reason)
