"""State that a server inherits from its parent, and the exit codes of programs below such a parent."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.local_executor.rig import REPOSITORY, Bench

SHOW = """
import os, signal, subprocess, sys
from infra.process_state import reset_inherited_state
reset_inherited_state()
print([os.path.realpath(f'/proc/self/fd/{fd}') for fd in range(3)].count('/dev/null'), file=sys.stdout)
ignored = {number.name for number in signal.Signals if signal.getsignal(number) == signal.SIG_IGN}
with open(sys.argv[1], 'w') as file:
    print(sorted(ignored), signal.pthread_sigmask(signal.SIG_BLOCK, []), subprocess.call('exit 3', shell=True),
          os.open('/', os.O_RDONLY) > 2, None in (sys.stdin, sys.stdout, sys.stderr), oct(os.umask(0)),
          sys.getfilesystemencoding(), file=file)
"""


def close_all() -> None:
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may themselves run under nohup
    os.closerange(0, 3)


def ignore_and_block() -> None:
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])


def run_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o777)


@pytest.mark.parametrize(
    ("parent", "ignored"),
    [
        (close_all, ["SIGPIPE", "SIGXFSZ"]),
        (ignore_and_block, ["SIGPIPE", "SIGXFSZ"]),
        (run_under_nohup, ["SIGHUP", "SIGPIPE", "SIGXFSZ"]),
    ],
)
def test_a_server_starts_from_a_known_state(
    parent: Callable[[], None], ignored: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shown = tmp_path_factory.mktemp("state") / "shown"
    latin = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", SHOW, str(shown)], preexec_fn=parent, cwd=REPOSITORY, env=latin, check=True)
    umask = "0o77" if parent is run_under_nohup else "0o22"
    assert shown.read_text() == f"{ignored} set() 3 True False {umask} utf-8\n"


async def test_programs_below_a_guard_that_ignores_the_end_of_children(bench: Bench) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os_wait = "import subprocess; print(subprocess.run(['false']).returncode)"
    try:
        inside = await bench.run(os_wait, "python", timeout_s=20)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert inside.out == "1\n", inside.err
    assert not inside.execution.timed_out


async def test_a_program_starts_no_program_for_core_dumps(bench: Bench) -> None:
    source = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
    ran = await bench.run(source, "python")
    highest = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert ran.out == ("0 0\n" if highest == 0 else "1 1\n")


def test_a_program_has_no_right_to_a_higher_priority() -> None:
    program = """
import os, resource
from infra.local_executor import launcher
limits = {}
resource.setrlimit = lambda name, limit: limits.update({name: limit})
os.execv = lambda *_: print(limits[resource.RLIMIT_NICE], limits[resource.RLIMIT_RTPRIO])
launcher.main(os.open(os.devnull, os.O_WRONLY), 0, 0, [0] * 4, '', '', ['/bin/true'])
"""
    environment = {**os.environ, "HOME": "/"}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "(0, 0) (0, 0)\n"


async def test_a_sandbox_is_killed_before_its_worker_if_memory_runs_out(bench: Bench) -> None:
    ran = await bench.run("for p in 1 $$; do echo 0 > /proc/$p/oom_score_adj; cat /proc/$p/oom_score_adj; done")
    assert ran.out == "800\n800\n"


def test_objects_of_the_start_are_exempt_from_garbage_collection() -> None:
    program = """
import gc
import edge_api.__main__, worker.__main__
from infra.process_state import exempt_startup_objects
exempt_startup_objects()
print(gc.get_freeze_count(), len(gc.get_objects()))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    exempt, examined = map(int, ended.stdout.split())
    assert exempt > 20_000
    assert examined < exempt / 100
