"""The command `wait`: outcomes of several runs, and its exit codes."""

import json

import pytest

from tests.client.conftest import Command
from tests.client.scripted_server import ScriptedServer, ok, problem, run


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (("succeeded",), 0),
        (("succeeded", "succeeded"), 0),
        (("succeeded", "failed", "cancelled"), 1),
        (("succeeded", "cancelled"), 3),
        (("waiting", "succeeded"), 4),
    ],
)
def test_the_exit_code_is_that_of_the_worst_run(
    api: ScriptedServer, swissbrain: Command, statuses: tuple[str, ...], code: int
) -> None:
    api.then(*(ok(run(status=status)) for status in statuses))
    ids = [f"run_{number}" for number in range(len(statuses))]
    result = swissbrain("wait", *ids)
    assert (result.code, result.err) == (code, "")
    assert sorted(line.split()[0] for line in result.out.splitlines()) == ids
    assert sorted(line.split()[1] for line in result.out.splitlines()) == sorted(statuses)


def test_a_run_that_does_not_end_in_time_is_named(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = ok(run(status="running"))
    result = swissbrain("wait", "run_1", "--timeout", "300ms")
    assert (result.code, result.out) == (4, "")
    assert result.err == "swissbrain: run_1 has not ended; it is running\n"


def test_a_run_that_does_not_exist_does_not_end_the_wait_for_others(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(problem(404, "there is no run 'x'"), ok(run("run_2", "succeeded")))
    result = swissbrain("wait", "run_1", "run_2", "--json")
    assert result.code == 2
    assert json.loads(result.out)["status"] == "succeeded"
    assert result.err.endswith("there is no run 'x'\n")
