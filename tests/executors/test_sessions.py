"""Sessions: programs that answer requests, in the sandbox and in a pod."""

import asyncio
import os

import pytest

from infra.contract.errors import SessionLost
from infra.contract.execution import Command, ExecLimits, Session
from tests.local_executor.rig import MB, RUN_ID, Bench
from tests.support.processes import children_of

PROGRAM = """
import os, sys, time
def answer(text):
    if text == 'big':
        os.write(1, (10 ** 9).to_bytes(4, 'big'))
    elif text == 'half':
        os.write(1, b'\\0')
        os._exit(3)
    else:
        reply = str(eval(text)).encode()
        os.write(1, len(reply).to_bytes(4, 'big') + reply)
while size := sys.stdin.buffer.read(4):
    answer(sys.stdin.buffer.read(int.from_bytes(size, 'big')).decode())
# MARKER
"""


async def opened(bench: Bench, *, timeout_s: float = 60, limits: ExecLimits | None = None) -> Session:
    source = PROGRAM.replace("MARKER", bench.marker)
    limits = limits or ExecLimits()
    command = Command(RUN_ID, "session", "python", source, timeout_s, limits)
    return await bench.executor.open(command, 1 * MB, 1)


async def ask(session: Session, text: str, timeout_s: float = 30) -> str:
    return (await session.ask(text.encode(), timeout_s)).decode()


async def test_a_session_answers_one_request_after_the_other(bench: Bench) -> None:
    session = await opened(bench)
    assert await ask(session, "globals().setdefault('kept', 41)") == "41"
    assert await ask(session, "kept + 1") == "42"
    assert await ask(session, "'x' * 900_000") == "x" * 900_000
    assert await ask(session, f"len('{'y' * 90_000}')") == "90000"
    await bench.executor.release(RUN_ID)
    with pytest.raises(SessionLost):
        await ask(session, "1")
    assert not bench.alive()


async def test_a_session_has_its_own_home_and_no_workspace(bench: Bench) -> None:
    session = await opened(bench)
    places = "os.getcwd(), os.environ['HOME'], os.path.exists('/workspace/file')"
    assert await ask(session, places) == "('/tmp', '/tmp', False)"
    assert await ask(session, "os.access('/', os.W_OK), os.access('/dev/shm', os.W_OK)") == "(False, True)"
    assert await ask(session, "sorted(os.listdir('/proc/self/fd'))") == "['0', '1', '2', '3']"
    await session.close()


@pytest.mark.parametrize(
    ("request_text", "reason"),
    [
        ("sys.exit('the reason')", "it ended with exit code 1: the reason"),
        ("os.kill(os.getpid(), 9)", "it was killed"),
        ("big", "its answer has 1000000000 bytes; allowed are 1048576"),
        ("half", "it ended with exit code 3"),
        ("time.sleep(100)", "it did not answer within 1 s"),
    ],
)
async def test_a_lost_session_has_a_reason(bench: Bench, request_text: str, reason: str) -> None:
    session = await opened(bench)
    assert await ask(session, "1") == "1"
    with pytest.raises(SessionLost) as lost:
        await ask(session, request_text, 1 if "sleep" in request_text else 60)
    assert str(lost.value) == reason
    assert not bench.alive()
    with pytest.raises(SessionLost, match="it was closed"):
        await ask(session, "1")


async def test_the_time_and_the_memory_of_a_session_are_limited(bench: Bench) -> None:
    session = await opened(bench, timeout_s=1)
    with pytest.raises(SessionLost, match="its time of 1 s was up"):
        await ask(session, "time.sleep(100)")
    session = await opened(bench, limits=ExecLimits(memory_bytes=200 * MB))
    # Each process is within its own limit, and both together are not.
    with pytest.raises(SessionLost, match="used more memory than its limit of 200 MB"):
        await ask(session, "os.fork(), len(kept := bytearray(b'x') * (150 << 20)), time.sleep(60)")


async def test_the_number_of_files_in_memory_is_limited(bench: Bench) -> None:
    session = await opened(bench)
    with pytest.raises(SessionLost, match="created more than its limit of 65536 files"):
        await ask(session, "[os.mknod(f'/dev/shm/{n}') for n in range(70_000)] and time.sleep(60)")


async def test_a_cancelled_request_ends_the_session(bench: Bench) -> None:
    before = children_of(os.getpid())
    session = await opened(bench)
    asking = asyncio.ensure_future(ask(session, "os.fork(), time.sleep(100)"))
    await asyncio.sleep(0.3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not bench.alive()
    assert children_of(os.getpid()) <= before


async def test_a_run_has_one_session(bench: Bench) -> None:
    first = await opened(bench)
    second = await opened(bench)
    with pytest.raises(SessionLost):
        await ask(first, "1")
    assert await ask(second, "1") == "1"
    await bench.executor.release(RUN_ID)
