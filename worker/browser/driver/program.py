"""Program inside the sandbox that drives Chromium: one action for each request on stdin, one reply on stdout each.

It imports Playwright and the standard library alone. A request is a JSON object with the field `action`. A reply is a
line with a JSON object (`PageReply` in worker/browser/replies.py), followed by the bytes of the file that the action
made. Each of the two is preceded by its length, 4 bytes, big-endian.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

from worker.browser.driver.actions import ActionOutcome, Actions
from worker.browser.driver.chromium import Chromium

LENGTH_BYTES = 4


def main(options: Mapping[str, Any]) -> None:
    """Start Chromium and answer requests until stdin ends. `options`: see `Chromium.start`."""
    # Nothing but replies may reach stdout, whatever a library or a child process prints.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    asyncio.run(_serve(options, sys.stdin.buffer, replies))


async def _serve(options: Mapping[str, Any], requests: BinaryIO, replies: BinaryIO) -> None:
    async with Chromium.start(options) as chromium:
        actions = Actions(chromium)
        while request := await asyncio.to_thread(_read, requests):
            outcome = await actions.perform(request)
            await asyncio.to_thread(_write, replies, outcome)


def _read(requests: BinaryIO) -> dict[str, Any] | None:
    size = int.from_bytes(requests.read(LENGTH_BYTES), "big")
    request: dict[str, Any] | None = json.loads(requests.read(size)) if size else None
    return request


def _write(replies: BinaryIO, outcome: ActionOutcome) -> None:
    # A page may put half of a surrogate pair into a text, which UTF-8 cannot encode.
    head = json.dumps(outcome.head, ensure_ascii=False).encode(errors="replace") + b"\n"
    content = memoryview((len(head) + len(outcome.file)).to_bytes(LENGTH_BYTES, "big") + head + outcome.file)
    while content:
        content = content[replies.write(content) :]
