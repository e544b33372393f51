"""Workers that are killed and started again on the same scratch root, far before their leases expire."""

import signal
from pathlib import Path

from tests.chaos.plans import effect, shell
from tests.chaos.processes import now_ms
from tests.chaos.scenario_helpers import (
    create_run,
    effect_steps,
    is_type,
    wait_for_end,
    wait_for_event,
    wait_for_program,
    workspace,
)
from tests.chaos.site import ChaosSite

LONG_LEASE_S = 600.0
"""No test waits that long: a run that goes on was taken back without waiting for its lease."""

PLAN = (effect(), shell("test -e done && echo once >> chain.txt; touch done; echo started; sleep 4"), effect())


def test_a_restarted_worker_takes_back_the_run_of_its_killed_process(site: ChaosSite) -> None:
    worker = site.worker("a", lease_s=LONG_LEASE_S)
    run_id = create_run(site, *PLAN)
    wait_for_program(site, run_id)

    worker.end(signal.SIGKILL)
    killed_ms = now_ms()
    worker.start()

    resumed = wait_for_event(site, run_id, is_type("run.resumed"), "the restarted worker resumes the run")
    assert resumed.ts - killed_ms < LONG_LEASE_S * 1000 / 10
    events = wait_for_end(site, run_id)
    with site.client() as client:
        assert [attempt.outcome for attempt in client.attempts(run_id)] == ["worker_restarted", "succeeded"]
    assert sum(map(is_type("step.finished"), events)) == 3
    assert effect_steps(site, run_id) == ["step-0", "step-2"]
    assert workspace(site, run_id) == {"done": b""}  # the files of the killed attempt did not count


def test_a_worker_of_the_same_name_on_another_root_takes_nothing_from_a_live_one(
    site: ChaosSite, tmp_path: Path
) -> None:
    site.worker("a", lease_s=LONG_LEASE_S)
    run_id = create_run(site, *PLAN)
    wait_for_program(site, run_id)
    first = site.workers.pop("a")
    try:
        site.worker("a", lease_s=LONG_LEASE_S, WORKER_ROOT=str(tmp_path / "other"))
        events = wait_for_end(site, run_id)
    finally:
        first.end()
    assert sum(map(is_type("run.started"), events)) == 1
    assert sum(map(is_type("run.resumed"), events)) == 0
    assert effect_steps(site, run_id) == ["step-0", "step-2"]
