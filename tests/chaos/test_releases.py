"""Workers of the commit before and of this one beside each other, behind this one's API."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.plans import Step, effect, shell
from tests.chaos.processes import ROOT
from tests.chaos.release import NoHistory, take_out
from tests.chaos.rounds import Report, play
from tests.chaos.site import Site
from tests.chaos.watching import create, effect_steps, ended, holder, is_type, reached, says, workspace

SECONDS = 8.0
KILLS = ("worker: kill -9", "worker: drained")
NAMES = ("this", "previous")
LARGE = 40_000
"""More than the journal holds of a result."""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Where the code of each release is."""
    try:
        yield {"this": ROOT, "previous": take_out(tmp_path_factory.mktemp("previous"))}
    except NoHistory as exc:
        pytest.skip(str(exc))


def ask(code: Path, program: str) -> list[str]:
    """The lines that a program prints which imports from that code."""
    done = subprocess.run([sys.executable, "-c", program], cwd=code, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.splitlines()


def test_each_worker_has_the_code_of_its_release(code: dict[str, Path]) -> None:
    for folder in code.values():
        lines = ask(folder, "import infra, worker; print(infra.__file__); print(worker.__file__)")
        assert lines == [f"{folder}/infra/__init__.py", f"{folder}/worker/__init__.py"]


def test_what_the_release_before_would_misread_carries_a_newer_version(code: dict[str, Path]) -> None:
    """A worker leaves a record of a newer version alone and reads every other one.

    Each release is asked for the classes by name, in whichever module it defines them.
    """
    program = """if True:
        import importlib, json, pkgutil
        import infra.contract
        names = {}
        for found in pkgutil.walk_packages(infra.contract.__path__, "infra.contract."):
            names |= vars(importlib.import_module(found.name))
        kinds = [names[name] for name in ("RunSpec", "PlanStep", "ForkOf", "FileEntry")]
        fields = {kind.__name__: sorted(kind.__struct_fields__) for kind in kinds}
        print(json.dumps([names["RECORD_VERSION"], fields]))
    """
    (before, old), (now, new) = (json.loads(ask(code[name], program)[0]) for name in ("previous", "this"))
    assert now >= before
    assert now > before or new == old, "runs may hold what workers of the release before do not know"


@pytest.mark.parametrize(("first", "second"), [NAMES, NAMES[::-1]])
def test_a_run_begun_under_one_release_is_ended_under_the_other(
    place: Site, code: dict[str, Path], first: str, second: str
) -> None:
    lost = place.worker(first, code=code[first])
    read: Step = {"tool": "file_read", "args": {"path": "large", "max_bytes": LARGE}}
    work = shell("echo begun; sleep 3; echo over >> chain.txt")
    run_id = create(place, effect(), shell(f"head -c {LARGE} /dev/zero | tr '\\0' x > large"), read, work, effect())
    reached(place, run_id, says("begun"), "the program runs")
    lost.end(signal.SIGKILL)
    place.worker(second, code=code[second])
    events = ended(place, run_id)
    assert [holder(event) for event in events if event.type in {"run.started", "run.resumed"}] == [first, second]
    assert [event.step for event in filter(is_type("step.finished"), events)] == [0, 1, 2, 3, 4]
    assert effect_steps(place, run_id) == ["step-0", "step-4"]
    assert workspace(place, run_id) == {"large": b"x" * LARGE, "chain.txt": b"over\n"}
    with place.client() as client:
        fork = client.fork(run_id, 4).run_id
    assert [event.type for event in ended(place, fork)][1] == "run.forked"
    assert effect_steps(place, fork) == ["step-4"]
    assert workspace(place, fork) == workspace(place, run_id)


@pytest.mark.timeout(300)
def test_under_load_two_releases_lose_and_repeat_nothing(place: Site, code: dict[str, Path]) -> None:
    workers = [place.worker(name, code=code[name], slots=4) for name in NAMES]
    report = Report()
    play(place, "releases", SECONDS, report, wanted=lambda name: name in KILLS)
    assert not report.complaints, "\n".join(report.complaints)
    assert all(worker.starts > 1 for worker in workers)
    with place.client() as client:
        owners = [{attempt.worker for attempt in client.attempts(run.run_id)} for run in client.runs()]
    assert owners.count(set(NAMES)) > 0
