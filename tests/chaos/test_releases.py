"""Workers of an earlier commit and of this commit run side by side, behind the API of this commit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.plans import KINDS, Step, effect, shell
from tests.chaos.processes import ROOT
from tests.chaos.release import REVISIONS, NoHistory, extract
from tests.chaos.rounds import Report, play
from tests.chaos.scenario_helpers import (
    create_run,
    effect_steps,
    is_type,
    wait_for_end,
    wait_for_program,
    worker_of,
    workspace,
)
from tests.chaos.site import ChaosSite, WorkerEnded
from tests.chaos.worker import LEASE_S

SECONDS = 8.0
NOTICED_S = 2.5
"""Time in which an idle worker would have claimed a run."""
KILLS = ("worker: kill -9", "worker: drained")
RELEASES = ("this", "previous")
LARGE_BYTES = 40_000
"""Size of a step result that is too large for the journal, so that it is stored as a blob."""


@pytest.fixture(scope="module")
def code(module_site: ChaosSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the source folder of each release. Skip the tests if no earlier commit is here, or none has a worker."""
    reasons = []
    for revision in REVISIONS:
        try:
            previous = extract(revision, tmp_path_factory.mktemp("previous"))
        except NoHistory as exc:
            reasons.append(str(exc))
            break
        if (reason := failed_start(module_site, previous)) is None:
            return {"this": ROOT, "previous": previous}
        reasons.append(f"the worker of {revision} does not start: {reason}")
    pytest.skip("; ".join(reasons))


def failed_start(site: ChaosSite, code: Path) -> str | None:
    """Start a worker over a stack without runs, and kill it. Return the last line of its log if it ends by itself."""
    try:
        site.worker("trial", code=code)
    except WorkerEnded as exc:
        return str(exc)
    finally:
        site.remove_workers()
        (site.folder / "trial.log").unlink()  # its errors are not those of a release
    return None


def output_lines(code: Path, program: str) -> list[str]:
    """Execute a program that imports from the folder `code`; return the lines that it prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd=code, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.splitlines()


def test_each_worker_imports_the_code_of_its_release(code: dict[str, Path]) -> None:
    for folder in code.values():
        lines = output_lines(folder, "import infra, worker; print(infra.__file__); print(worker.__file__)")
        assert lines == [f"{folder}/infra/__init__.py", f"{folder}/worker/__init__.py"]


@pytest.fixture(scope="module")
def versions(code: dict[str, Path]) -> dict[str, int]:
    """Return the version of the records that each release writes."""
    program = "from infra.contract.runs import RECORD_VERSION; print(RECORD_VERSION)"
    return {name: int(output_lines(folder, program)[0]) for name, folder in code.items()}


def as_of_both(site: ChaosSite, versions: dict[str, int], run_id: str) -> str:
    """Give the run's record the version that both releases can read, as if the previous API had created it."""
    site.redis_command("HSET", f"run:{run_id}", "v", str(min(versions.values())))
    return run_id


def owners(site: ChaosSite, run_id: str) -> set[str]:
    """Return the names of the workers that claimed the run."""
    with site.client() as client:
        return {attempt.worker for attempt in client.attempts(run_id)}


def test_a_record_with_changed_fields_has_a_newer_version(code: dict[str, Path]) -> None:
    """Compare the fields of the stored classes. A worker leaves newer versions alone, and reads all others.

    Each release is searched for the classes by name, because modules move between releases.
    """
    program = """if True:
        import importlib, json, pkgutil
        import infra.contract
        names = {}
        for found in pkgutil.walk_packages(infra.contract.__path__, "infra.contract."):
            names |= vars(importlib.import_module(found.name))
        known = ("RunSpec", "PlanStep", "ForkOf", "FileEntry", "FolderEntry", "Input")
        kinds = [names[name] for name in known if name in names]
        fields = {kind.__name__: sorted(kind.__struct_fields__) for kind in kinds}
        print(json.dumps([names["RECORD_VERSION"], fields]))
    """
    (old_version, old_fields), (version, fields) = (
        json.loads(output_lines(code[name], program)[0]) for name in ("previous", "this")
    )

    assert version >= old_version
    assert version > old_version or fields == old_fields, "workers of the previous release would ignore new fields"


@pytest.mark.parametrize(("first", "second"), [RELEASES, RELEASES[::-1]])
def test_a_run_started_by_one_release_is_finished_by_the_other(
    site: ChaosSite, code: dict[str, Path], versions: dict[str, int], first: str, second: str
) -> None:
    killed = site.worker(first, code=code[first])
    read: Step = {"tool": "file_read", "args": {"path": "large", "max_bytes": LARGE_BYTES}}
    # Longer than a busy machine needs to kill the worker: if the step ended first, the next one would run twice.
    work = shell("echo started; sleep 8; echo done >> chain.txt")
    write = shell(f"head -c {LARGE_BYTES} /dev/zero | tr '\\0' x > large")
    run_id = as_of_both(site, versions, create_run(site, effect(), write, read, work, effect()))
    wait_for_program(site, run_id)

    killed.end(signal.SIGKILL)
    site.worker(second, code=code[second])

    events = wait_for_end(site, run_id)

    assert [worker_of(event) for event in events if event.type in {"run.started", "run.resumed"}] == [first, second]
    assert [event.step for event in filter(is_type("step.finished"), events)] == [0, 1, 2, 3, 4]
    assert effect_steps(site, run_id) == ["step-0", "step-4"]
    assert workspace(site, run_id) == {"large": b"x" * LARGE_BYTES, "chain.txt": b"done\n"}

    with site.client() as client:
        fork = as_of_both(site, versions, client.fork(run_id, 4).run_id)
    assert [event.type for event in wait_for_end(site, fork)][1] == "run.forked"
    assert effect_steps(site, fork) == ["step-4"]
    assert workspace(site, fork) == workspace(site, run_id)


def test_a_run_of_a_newer_version_is_left_to_the_newer_release(
    site: ChaosSite, code: dict[str, Path], versions: dict[str, int]
) -> None:
    if versions["this"] == versions["previous"]:
        pytest.skip("both releases write records of the same version")
    site.worker("previous", code=code["previous"])
    run_id = create_run(site, effect(), shell("mkdir empty; echo started; sleep 4"), shell("rmdir empty"))
    time.sleep(NOTICED_S)
    assert owners(site, run_id) == set()

    killed = site.worker("this", code=code["this"])
    wait_for_program(site, run_id)
    killed.end(signal.SIGKILL)
    time.sleep(LEASE_S + NOTICED_S)
    assert owners(site, run_id) == {"this"}

    site.worker("this", code=code["this"])
    events = wait_for_end(site, run_id)
    assert {worker_of(event) for event in events if event.type in {"run.started", "run.resumed"}} == {"this"}
    assert [event.step for event in filter(is_type("step.finished"), events)] == [0, 1, 2]
    assert effect_steps(site, run_id) == ["step-0"]


@pytest.mark.timeout(300)
@pytest.mark.skipif("CHAOS_PREVIOUS" not in os.environ, reason="give an earlier release, CHAOS_PREVIOUS=COMMIT")
def test_two_releases_under_load_lose_and_repeat_no_step(
    site: ChaosSite, code: dict[str, Path], versions: dict[str, int]
) -> None:
    with site.client() as client:
        earlier = {run.run_id for run in client.runs()}
    workers = [site.worker(name, code=code[name], slots=4) for name in RELEASES]
    report = Report()
    play(site, "releases", SECONDS, report, selected=lambda name: name in KILLS, kinds=KINDS)
    assert not report.violations, "\n".join(report.violations)
    assert all(worker.starts > 1 for worker in workers)
    with site.client() as client:
        owned = [owners(site, run.run_id) for run in client.runs() if run.run_id not in earlier]
    if versions["this"] == versions["previous"]:
        assert owned.count(set(RELEASES)) > 0
    else:
        assert set().union(*owned) == {"this"}
