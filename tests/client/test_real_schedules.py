"""Schedules with both clients and the command, against the real API and a stand-in of QStash."""

import json
from typing import Any

import pytest

from swissbrain import ApiError, Client, ClientError, NewRun, shell
from swissbrain.access import TOKEN, URL
from tests.client.conftest import Command
from tests.client.real_api import Real
from tests.edge.stack import TOKENS, SimulatedWorker

CRON = "0 8 * * MON-FRI"


@pytest.fixture
def ada_command(real: Real, worker: SimulatedWorker, swissbrain: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return the command in front of the real API."""
    monkeypatch.setenv(URL, real.url)
    monkeypatch.setenv(TOKEN, TOKENS["ada"])
    return swissbrain


def test_a_client_manages_schedules(ada: Client) -> None:
    run = NewRun(plan=shell("echo hello"), metadata={"team": "a"}, timeout_s=60)
    made = ada.create_schedule(CRON, run, timezone="Europe/Zurich", overlap="queue", idempotency_key="k")

    assert ada.create_schedule(CRON, run, timezone="Europe/Zurich", overlap="queue", idempotency_key="k") == made
    assert (made.cron, made.timezone, made.overlap, made.paused, made.pending) == (
        CRON,
        "Europe/Zurich",
        "queue",
        False,
        False,
    )
    assert made.run
    assert made.run["metadata"] == {"team": "a"}
    assert made.run["plan"][0]["tool"] == "shell"
    assert made.schedule_id in [each.schedule_id for each in ada.schedules()]
    changed = ada.change_schedule(made.schedule_id, cron="0 9 * * *", run={"prompt": "again"}, overlap="skip")
    assert (changed.cron, changed.title, changed.timezone) == ("0 9 * * *", "again", "Europe/Zurich")
    assert ada.change_schedule(made.schedule_id, paused=True).next_ms == []
    assert len(ada.change_schedule(made.schedule_id, paused=False).next_ms) == 5
    started = ada.run_schedule_now(made.schedule_id)
    assert started.outcome == "started"
    assert started.run_id
    assert ada.get_run(started.run_id).metadata == {"schedule": made.schedule_id}
    assert ada.run_schedule_now(made.schedule_id).outcome == "skipped"
    ada.delete_schedule(made.schedule_id)
    with pytest.raises(ApiError, match="there is no schedule"):
        ada.get_schedule(made.schedule_id)


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (NewRun(prompt="x", start=False), "start"),
        (NewRun(prompt="x", idempotency_key="k"), "idempotency_key"),
        ({"prompt": "x", "continue_of": "run_1"}, "continue_of"),
    ],
)
def test_a_run_that_cannot_be_scheduled_is_refused_before_it_is_sent(
    ada: Client, run: NewRun | dict[str, Any], word: str
) -> None:
    with pytest.raises(ClientError, match=f"cannot have '{word}'"):
        ada.create_schedule(CRON, run)


def test_the_command_manages_schedules(ada_command: Command) -> None:
    created = ada_command("schedule", "create", CRON, "Summarise", "--timezone", "Europe/Zurich", "--metadata", "a=b")
    schedule = created.out.strip()
    assert (created.code, created.err) == (0, "")
    listed = ada_command("schedule", "list").out
    assert schedule in listed
    assert "Europe/Zurich" in listed
    assert "paused" in ada_command("schedule", "pause", schedule).out
    resumed = json.loads(ada_command("schedule", "resume", schedule, "--json").out)
    assert (resumed["paused"], len(resumed["next_ms"]), resumed["run"]["metadata"]) == (False, 5, {"a": "b"})
    assert "next" in ada_command("schedule", "next", schedule).out
    started = ada_command("schedule", "run-now", schedule)
    assert (started.code, started.out[:4]) == (0, "run_")
    skipped = ada_command("schedule", "run-now", schedule)
    assert (skipped.code, skipped.out) == (1, "")
    assert "has not ended" in skipped.err
    assert ada_command("schedule", "rm", schedule).out == f"{schedule} deleted\n"
    gone = ada_command("schedule", "next", schedule)
    assert (gone.code, gone.err.count("\n")) == (2, 1)
    bad = ada_command("schedule", "create", "every day", "x")
    assert bad.code == 2
    assert "five fields" in bad.err
