"""Programs in Jobs of the test cluster during random faults: none is lost, none is started twice, no Job is left."""

import os
from pathlib import Path

import pytest

from tests.chaos.cluster import CLUSTER_KINDS
from tests.chaos.rounds import Report, play
from tests.chaos.site import running_site

SEED = os.environ.get("CHAOS_SEED", "31")
SECONDS = 5.0
KINDS = [kind for kind in CLUSTER_KINDS if kind.name in {"chatty", "long", "failing", "cancelled"}]
PARTS = ("kubernetes: ", "worker to kubernetes: ", "pod: ", "worker: kill", "worker: frozen", "worker to s3: reset")


@pytest.mark.timeout(600)
def test_random_faults_of_the_cluster_lose_no_program_and_start_none_twice(tmp_path: Path) -> None:
    report = Report()
    with running_site(tmp_path, kubernetes=True) as site:
        for name in ("w1", "w2"):
            site.worker(name, slots=4)
        play(site, SEED, SECONDS, report, per_second=2.0, kinds=KINDS, selected=lambda name: name.startswith(PARTS))
        assert site.cluster
        jobs = len(site.cluster.server.kubelet.pods)
    assert not report.violations, "\n".join([f"CHAOS_SEED={SEED}", *report.violations])
    assert sum(report.faults.values()) > 2
    assert jobs > 2
