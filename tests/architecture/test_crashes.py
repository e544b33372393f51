"""A worker process of the test run that dies is explained."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import ctypes, os, signal

def test_killed():
    os.kill(os.getpid(), signal.SIGKILL)

def test_terminated():
    os.kill(os.getpid(), signal.SIGTERM)

def test_segmentation_fault():
    ctypes.string_at(0)

def test_exit():
    os._exit(3)
"""


def test_the_end_of_each_worker_that_dies_is_told_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "test_deaths.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "tests.support.crashes", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTEST_XDIST_WORKER", None)
    run = subprocess.run(
        [*command, "-p", "no:hypothesispytest", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "4 failed" in run.stdout, run.stdout + run.stderr
    for end in ("was ended by SIGKILL", "was ended by SIGTERM", "was ended by SIGSEGV", "exited with code 3"):
        assert run.stdout.count(end) == 1
    assert run.stdout.count("it has written no traceback") == 2
    for name in ("test_terminated", "test_segmentation_fault"):
        assert f"in {name}\n" in run.stdout
