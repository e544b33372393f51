"""Reason of a process's end: the failure in its log, and never a line of ordinary operation."""

import subprocess
import sys

import pytest

from infra.devstack.exit_reason import exit_reason

CLAIMED = '{"time":"2026-11-29T00:00:00.000Z","level":"info","action":"run.claimed","run_id":"run_1"}'
BROKEN = (
    '{"time":"…","level":"error","action":"run.broken","error":"Traceback …\\n  File \\"a.py\\"\\nKeyError: \'a\'"}'
)
GROUP = """
import asyncio
async def fail(): raise LookupError("the shelf is empty")
async def main():
    async with asyncio.TaskGroup() as group: group.create_task(fail())
asyncio.run(main())
"""
GO_PANIC = """I1129 00:47:20.776413 collector.go:84 Reporting
panic: runtime error: index out of range

goroutine 1 [running]:
main.main()
\t/src/main.go:5 +0x20
"""
NEWER_DATA = """1:M 29 Nov 2026 00:47:12.305 * Server initialized
1:M 29 Nov 2026 00:47:12.306 # Can't handle RDB format version 99
1:M 29 Nov 2026 00:47:12.307 # Error reading the RDB preamble of the AOF file, AOF loading aborted
"""
PYTHON_FATAL = """Fatal Python error: Segmentation fault

Current thread 0x00007f807f1a8040 (most recent call first):
  File "a.py", line 1 in f

Extension modules: uvloop.loop (total: 1)
"""


def stderr_of(source: str) -> str:
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", None),
        (CLAIMED, None),
        ("{not json", None),
        (
            f"{CLAIMED}\ncannot listen on 127.0.0.1:80: Permission denied\n",
            "cannot listen on 127.0.0.1:80: Permission denied",
        ),
        (f"a setting is wrong\n{CLAIMED}\n", "a setting is wrong"),
        (f"{BROKEN}\n{CLAIMED}\n", "run.broken: KeyError: 'a'"),
        ('{"level":"critical","action":"store.lost"}', "store.lost"),
        (GO_PANIC, "panic: runtime error: index out of range"),
        ("1:M 29 Nov 2026 00:47:12.306 * Ready to accept connections tcp\n", None),
        ("1:M 29 Nov 2026 00:47:12.306 # Bad file format\n1:M 29 Nov 2026 00:47:12.307 * bye\n", "Bad file format"),
        (NEWER_DATA, "Can't handle RDB format version 99"),
        (PYTHON_FATAL, "Fatal Python error: Segmentation fault"),
        ("1:M 29 Nov 2026 00:47:12.306 # WARNING Memory overcommit must be enabled!\n", None),
        (
            "F1129 00:47:20.174717 server.go:363 no such file\nI1129 00:47:20.174617 m.go:4 peers\n",
            "no such file",
        ),
        ("E1129 00:47:20.1 w.go:5 retried\nI1129 00:47:20.2 m.go:4 peers\n", None),
        ("I1129 00:47:20.2 m.go:4 peers\nE1129 00:47:20.3 mini.go:1244 port 1 is taken\n", "port 1 is taken"),
        ("  Master ready\n╔═══╗\n║   S3   ║\n╚═══╝\nI1129 00:47:20.2 m.go:4 peers\n", None),
    ],
)
def test_the_reason_is_the_line_that_reports_a_failure(log: str, reason: str | None) -> None:
    assert exit_reason(log) == reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left on device"),
        ("def f(): raise KeyError\nf()", "KeyError"),
        ("try: 1/0\nexcept ZeroDivisionError as e: raise RuntimeError('second') from e", "RuntimeError: second"),
        (GROUP, "LookupError: the shelf is empty"),
        ("import sys; sys.exit('one line')", "one line"),
        ("raise ValueError('two lines\\nhint: the second')", "ValueError: two lines"),
        ("e = OSError('in use'); e.add_note('port: 80'); raise e", "OSError: in use"),
    ],
)
def test_the_reason_of_a_python_program_is_its_exception(source: str, reason: str) -> None:
    assert exit_reason(f"{CLAIMED}\n{stderr_of(source)}") == reason
