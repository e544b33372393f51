"""Calls of a pod: started once, followed from any line and by several, ended from outside, hostile programs."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from infra.contract.errors import FilesUnavailable, HostExhausted, InvalidInput
from infra.contract.execution import Command, LinePart
from infra.contract.files import FileEntry
from infra.contract.lending import Loan
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.k8s_executor.pod_call import prepare
from infra.pod_runner import __main__ as runner_main
from infra.pod_runner import archive
from infra.pod_runner.line_log import LineLog
from infra.workspace import S3RunFiles, Workspaces
from tests.executors.pods import FollowedCalls, Pods
from tests.support.waiting import until

WAITING = "echo $$; i=0; while [ ! -e go ]; do sleep 0.05; done; echo made > file; for i in 1 2 3; do echo $i; done"


def command(source: str, interpreter: str = "sh", timeout_s: float = 60) -> Command:
    return Command("run-1", "step-0", interpreter, source, timeout_s)  # type: ignore[arg-type]


class Log:
    """Log of a worker that takes over to the number of lines in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def add(self, _: str, part: LinePart) -> bool:
        self.lines.append(part.text)
        return True

    async def has(self, count: int) -> None:
        async def there() -> bool:
            return len(self.lines) >= count

        await until(there, f"{count} lines are there")


async def test_the_next_worker_follows_the_program_of_a_dead_one(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    log, given = Log(), command(WAITING)
    async with pods.pod() as pod:
        first = FollowedCalls(pod.control(), files, pod.gone)
        loan = await first.start(await prepare(given, files))
        # The follower of a dead worker ends without a word: here its connection is cut.
        records = pod.control().records(0)
        assert (await anext(records)).n == 1
        await records.aclose()
        next_calls = FollowedCalls(pod.control(), files, pod.gone)
        assert await next_calls.start(await prepare(given, files)) == loan
        following = asyncio.ensure_future(next_calls.follow(loan, given, log.add, tmp_path))
        (pod.workspace / "go").touch()
        ended = await following
        assert await asyncio.to_thread(pod.wait) == 0
    assert (ended.exit_code, [file.path for file in ended.changes.written]) == (0, ["file", "go"])
    assert log.lines[1:] == ["1", "2", "3"]
    assert ended.stdout.read_text().split() == log.lines


async def test_a_worker_that_comes_after_the_end_finds_lines_and_result_in_the_store(
    pods: Pods, files: S3RunFiles, tmp_path: Path
) -> None:
    given, log = command("echo one; printf 'a\\rb\\r\\n'; echo two; exit 3"), Log()
    async with pods.pod() as pod:
        calls = FollowedCalls(pod.control(), files, pod.gone)
        loan = await calls.start(await prepare(given, files))
        assert await asyncio.to_thread(pod.wait) == 0
        ended = await calls.follow(loan, given, log.add, tmp_path)
        logged = pod.records()
    assert (ended.exit_code, log.lines) == (3, ["one", "b", "two"])
    assert [record.get("t") for record in logged] == [None, "one", "b", "two", None]
    assert [record.get("n") for record in logged[1:-1]] == [1, 2, 3]
    assert logged[-1] == {"runner": "ended", "reason": "the result is stored"}


async def test_a_pod_that_is_told_to_end_kills_the_program_and_stores_what_it_left(
    pods: Pods, files: S3RunFiles, tmp_path: Path
) -> None:
    given, log = command("echo kept > file; trap '' TERM; echo up; sleep 1000; echo never"), Log()
    async with pods.pod() as pod:
        calls = FollowedCalls(pod.control(), files, pod.gone)
        loan = await calls.start(await prepare(given, files))
        following = asyncio.ensure_future(calls.follow(loan, given, log.add, tmp_path))
        await log.has(1)
        pod.signal(signal.SIGTERM)
        with pytest.raises(HostExhausted, match="ended from outside"):
            await following
        assert await asyncio.to_thread(pod.wait) == 0
    result = json.loads(await files.fetch(loan, "result.json", 10_000))
    assert result["cancelled"]
    assert [file["path"] for file in result["changes"]["files"]] == ["file"]
    assert await files.fetch(loan, "stdout", 10) == b"up\n"


HOSTILE = """
import ctypes, os, re, resource, signal, socket, subprocess
found = []
for pid in (1, os.getppid()):
    for name in ('environ', 'cmdline', 'maps', 'mem', 'auxv'):
        try: found.append(open(f'/proc/{pid}/{name}', 'rb').read(1 << 20))
        except OSError: pass
    try: found += [os.readlink(f'/proc/{pid}/fd/{fd}').encode() for fd in os.listdir(f'/proc/{pid}/fd')]
    except OSError: pass
found += [str(dict(os.environ)).encode(), subprocess.run(['sh', '-c', 'cat /proc/*/environ /proc/*/cmdline'],
    capture_output=True).stdout]
text = b' '.join(found)
assert b'runner.pyz' in text, text
for secret in (b'Amz', b'http://', b'manifest', b'/files/'): assert secret not in text, secret
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(16, 1, 0, 0) == -1
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT): os.kill(1, number)
port = int(open('/workspace/port').read())
for request in (b'{"do": "cancel"}', b'{"token": "guess", "do": "cancel"}', b'nonsense', b'[]', b'x' * 100000):
    with socket.create_connection(('127.0.0.1', port), timeout=10) as connection:
        try:
            connection.sendall(request + b'\\n')
            assert connection.recv(100) == b''
        except ConnectionError: pass
print('nothing')
"""


async def test_a_program_learns_no_url_and_cannot_end_its_runner(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    async with pods.pod() as pod:
        await files.write("port", str(pod.port).encode())
        calls, given = FollowedCalls(pod.control(), files, pod.gone), command(HOSTILE, "python")
        ended = await calls.follow(await calls.start(await prepare(given, files)), given, Log().add, tmp_path)
    assert ended.stdout.read_text() == "nothing\n", ended.stderr.read_text()
    assert ended.exit_code == 0


async def test_only_the_token_of_the_pod_is_served_and_the_first_start_counts(pods: Pods) -> None:
    async with pods.pod() as pod:
        with pytest.raises(PodUnreachable):
            await PodControl("127.0.0.1", pod.port, "guess").start("1-1", "http://127.0.0.1:1/manifest")
        # Nothing listens there, so the manifest cannot be fetched until it is cancelled.
        assert await pod.control().start("1-1", "http://127.0.0.1:1/manifest") == "1-1"
        assert await pod.control().start("2-1", "http://127.0.0.1:1/other") == "1-1"
        await pod.control().cancel(20)
        assert await asyncio.to_thread(pod.wait) == runner_main.NOT_STORED
        assert "the manifest" in str(pod.records()[-1]["reason"])


async def test_a_call_whose_manifest_is_gone_is_reported(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    async with pods.pod() as pod:
        loan, lent = await files.lend(1, 60)
        await pod.control().start(loan.number, lent.slots.result)  # a signature for PUT
        calls = FollowedCalls(pod.control(), files, pod.gone)
        with pytest.raises(HostExhausted, match="without a result"):
            await calls.follow(loan, command("true"), Log().add, tmp_path)
        assert await asyncio.to_thread(pod.wait) == runner_main.NOT_STORED
        assert pod.records()[-1]["reason"] == "the object store answered 403 for the manifest"


async def test_a_pod_that_nobody_starts_ends(pods: Pods) -> None:
    async with pods.pod(start_s=1) as pod:
        assert await asyncio.to_thread(pod.wait) == runner_main.NOT_STARTED


async def test_a_program_that_fills_its_disk_is_killed(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    log = Log()
    given = command("while :; do head -c 20M /dev/zero > /tmp/$((i=i+1)); sleep 0.01; done")
    async with pods.pod() as pod:
        calls = FollowedCalls(pod.control(), files, pod.gone)
        ended = await calls.follow(await calls.start(await prepare(given, files)), given, log.add, tmp_path)
    assert ended.exit_code == 137
    assert log.lines[-1] == "killed: the program stored more than its limit of 256 MB in /tmp"


async def test_a_runner_that_is_root_runs_the_program_under_another_uid(
    pods: Pods, files: S3RunFiles, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give the program another uid")
    await files.write("given", b"x")
    given = command("id -u; id -G; echo y >> given; mkdir -m 700 own; echo z > own/file; chmod 0 own/file; kill -9 1")
    async with pods.pod(program_uid=311_000) as pod:
        calls = FollowedCalls(pod.control(), files, pod.gone)
        ended = await calls.follow(await calls.start(await prepare(given, files)), given, Log().add, tmp_path)
    assert ended.stdout.read_text() == "311000\n311000\n"
    assert "not permitted" in ended.stderr.read_text()
    assert [(file.path, file.size_bytes) for file in ended.changes.written] == [("given", 3), ("own/file", 2)]


async def test_output_that_finds_no_space_ends_the_program(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    given = command("yes")
    async with pods.pod(tmp_bytes=1024 * 1024) as pod:
        calls = FollowedCalls(pod.control(), files, pod.gone)
        with pytest.raises(HostExhausted, match="No space left"):
            await calls.follow(await calls.start(await prepare(given, files)), given, Log().add, tmp_path)
        assert await asyncio.to_thread(pod.wait) == 0


async def test_a_file_that_the_store_has_lost_is_named(
    pods: Pods, files: S3RunFiles, workspaces: Workspaces, tmp_path: Path
) -> None:
    lost = FileEntry(key="files/1-1/lost", size_bytes=1, modified_ms=0)
    made, given = workspaces.run("user-lost", "run-1", 3, {"lost": lost}), command("echo started")
    async with pods.pod() as pod:
        calls = FollowedCalls(pod.control(), made, pod.gone)
        with pytest.raises(FilesUnavailable, match="the object store answered 404 for the file 'lost'"):
            await calls.follow(await calls.start(await prepare(given, made)), given, Log().add, tmp_path)


async def test_a_pod_that_dies_is_no_result(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    log, given = Log(), command("echo up; sleep 1000")
    async with pods.pod() as pod:
        calls = FollowedCalls(pod.control(), files, pod.gone)
        following = asyncio.ensure_future(
            calls.follow(await calls.start(await prepare(given, files)), given, log.add, tmp_path)
        )
        await log.has(1)
        pod.kill()
        with pytest.raises(HostExhausted, match="without a result"):
            await following


async def test_a_loan_of_another_form_is_refused(files: S3RunFiles) -> None:

    with pytest.raises(InvalidInput):
        await files.fetch(Loan(number="../../other", slots=1), "stdout", 10)


async def test_lines_beyond_the_limit_are_cut_with_a_note() -> None:
    log = LineLog(1000)
    added = [await log.add("stdout", LinePart("x" * 100)) for _ in range(20)]
    assert added == [True] * added.count(True) + [False] * added.count(False)
    assert not added[-1]
    records = [json.loads(line) for line in log.read(0)[0].splitlines()]
    assert [record["n"] for record in records] == [*range(1, log.count + 1)]
    assert records[-1] == {"n": log.count, "cut": True}
    assert log.read(2)[0].splitlines()[0] == json.dumps({"n": 3, "s": "stdout", "t": "x" * 100}).encode()
    assert log.read(99) == (b"", 99)
    log.close()
    assert not await log.wait(log.count, 1)
    os.close(log.fd)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "RUNNER_TOKEN_SHA256 must be the SHA-256"),
        ({"RUNNER_TOKEN_SHA256": "0" * 64}, "RUNNER_PORT must be a number"),
        ({"RUNNER_TOKEN_SHA256": "0" * 64, "RUNNER_PORT": "65536"}, "from 0 to 65535, not '65536'"),
        ({"RUNNER_TOKEN_SHA256": "0" * 64, "RUNNER_PORT": "1", "RUNNER_START_S": "0"}, "from 1 to 86400"),
    ],
)
def test_wrong_settings_are_named(variables: dict[str, str], message: str) -> None:
    with pytest.raises(runner_main.BadSettings, match=message):
        runner_main.settings_from(variables)


def test_the_runner_refuses_to_be_anything_but_the_first_process(capfd: pytest.CaptureFixture[str]) -> None:
    assert runner_main.main() == runner_main.BAD_SETTINGS
    assert capfd.readouterr().err == "the runner must be the first process (PID 1) of a container\n"


def test_the_same_sources_make_the_same_archive(runner: Path, tmp_path: Path) -> None:
    archive.write(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == runner.read_bytes()
