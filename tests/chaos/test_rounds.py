"""Load under random faults: what was acknowledged is done, once, and told in order."""

import os
from pathlib import Path

import pytest

from tests.chaos.faults import S3_KILLED
from tests.chaos.rounds import Report, play
from tests.chaos.site import site

SEED = os.environ.get("CHAOS_SEED", "1")
SECONDS = 20.0


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_done_twice_whatever_is_killed(tmp_path: Path) -> None:
    report = Report()
    with site(tmp_path) as place:
        play(place, SEED, SECONDS, report, wanted=lambda name: name != S3_KILLED)
    assert not report.complaints, "\n".join([f"CHAOS_SEED={SEED}", *report.complaints])
    assert sum(report.faults.values()) > 5
    assert sum(report.runs.values()) > 20
