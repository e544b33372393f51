"""Readiness of a worker, read from its log."""

from pathlib import Path

import pytest

from infra.devstack.errors import StackError
from infra.devstack.probes import worker_fit

FIT = '{"level":"info","action":"worker.fit"}\n'
NO_STORE = '{"level":"warning","action":"worker.unfit","part":"object store","reason":"no answer","retry_s":1.0}\n'
NO_SANDBOX = '{"level":"warning","action":"worker.unfit","part":"sandbox","reason":"no bubblewrap","retry_s":1.0}\n'


@pytest.mark.parametrize(
    ("log", "fit"),
    [
        ("", False),
        ("not JSON\n[1]\n", False),
        (NO_STORE, False),
        (NO_STORE + FIT, True),
        ('{"action":"worker.fi', False),
    ],
)
def test_a_worker_is_ready_when_it_takes_runs(tmp_path: Path, log: str, fit: bool) -> None:
    (tmp_path / "log").write_text(log)
    assert worker_fit(tmp_path / "log", 0) is fit


def test_only_this_start_counts(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(FIT)
    assert worker_fit(tmp_path / "log", len(FIT)) is False
    assert worker_fit(tmp_path / "missing", 0) is False


def test_a_missing_sandbox_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(NO_SANDBOX)
    with pytest.raises(StackError, match=r"^programs cannot be isolated on this host: no bubblewrap$"):
        worker_fit(tmp_path / "log", 0)
