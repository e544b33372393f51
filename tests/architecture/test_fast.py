"""The list of `make test-fast` names files that exist, and its tests start no part of the stack."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fast import is_fast, listed_paths


def test_listed_paths_exist() -> None:
    named, left_out = listed_paths()
    assert [str(path) for path in (*named, *left_out) if not path.exists()] == []
    assert is_fast(Path(__file__))
    assert not any(is_fast(path) for path in left_out)


@pytest.mark.parametrize(
    "command",
    [["/usr/bin/valkey-server", "--port", "1"], [sys.executable, "-P", "-m", "worker"], ["no-such-wrapper", "bwrap"]],
)
def test_a_listed_test_cannot_start_a_part_of_the_stack(command: list[str]) -> None:
    with pytest.raises(pytest.fail.Exception, match="starts a part of the stack"):
        subprocess.Popen(command)


def test_a_listed_test_may_start_other_processes() -> None:
    assert subprocess.run([sys.executable, "-c", ""], check=False, timeout=60).returncode == 0
