"""Load during random faults: every acknowledged run is executed, no step twice, and its log is complete and ordered."""

import os
from pathlib import Path

import pytest

from tests.chaos.faults import MODEL_BUSY, S3_KILLED
from tests.chaos.rounds import Report, play
from tests.chaos.site import running_site

SEED = os.environ.get("CHAOS_SEED", "1")
SECONDS = 10.0


@pytest.mark.timeout(600)
def test_random_faults_lose_no_run_and_repeat_no_completed_step(tmp_path: Path) -> None:
    report = Report()
    with running_site(tmp_path) as site:
        play(site, SEED, SECONDS, report, selected=lambda name: name not in {S3_KILLED, MODEL_BUSY})
    assert not report.violations, "\n".join([f"CHAOS_SEED={SEED}", *report.violations])
    assert sum(report.faults.values()) > 3
    assert sum(report.runs.values()) > 20
