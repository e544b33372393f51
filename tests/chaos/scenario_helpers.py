"""Helpers of the scenarios: create one run, and read its log, effects and files."""

import io
from collections.abc import Callable

from swissbrain.models import Event
from tests.chaos.site import ChaosSite
from tests.support.waiting import wait_until

TIMEOUT_S = 60.0
"""Time limit of each wait, far above the expected time, because the machine may be busy."""


def read_log(site: ChaosSite, run_id: str) -> list[Event]:
    with site.client() as client:
        events = [event for event in client.logged(run_id) if isinstance(event, Event)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


def wait_for_event(site: ChaosSite, run_id: str, matches: Callable[[Event], bool], description: str) -> Event:
    """Wait until the log has an event that matches; return the first."""
    wait_until(lambda: any(map(matches, read_log(site, run_id))), description, timeout_s=TIMEOUT_S)
    return next(filter(matches, read_log(site, run_id)))


def wait_for_program(site: ChaosSite, run_id: str) -> None:
    """Wait until a shell step of the run has printed the line `started`."""
    wait_for_event(site, run_id, has_output("started"), "the program runs")


def wait_for_end(site: ChaosSite, run_id: str, status: str = "succeeded", *, ends: int = 1) -> list[Event]:
    """Wait until the run has ended; assert its status and the number of its ends; return its log."""
    with site.client() as client:
        wait_until(lambda: client.get_run(run_id).ended, "the run ends", timeout_s=TIMEOUT_S)
        assert client.get_run(run_id).status == status
    events = read_log(site, run_id)
    assert [event.type for event in events].count("run.finished") == ends
    assert events[-1].type == "run.finished"
    return events


def create_run(site: ChaosSite, *steps: dict[str, object]) -> str:
    with site.client() as client:
        return client.create_run(plan=steps, max_attempts=20).run_id


def worker_of(event: Event) -> str:
    return str(event.data["worker"])


def has_output(text: str) -> Callable[[Event], bool]:
    return lambda event: event.type == "tool.output" and event.data["text"] == text


def is_type(kind: str) -> Callable[[Event], bool]:
    return lambda event: event.type == kind


def effect_steps(site: ChaosSite, run_id: str) -> list[str]:
    """Return the names of the executed steps of a run that record effects, in order of execution."""
    lines = site.effects_file.read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith(run_id)]


def workspace(site: ChaosSite, run_id: str) -> dict[str, bytes]:
    """Return path and content of all files of a run."""
    found = {}
    with site.client() as client:
        for file in client.files(run_id):
            content = io.BytesIO()
            client.download(run_id, file.path, content)
            found[file.path] = content.getvalue()
    return found
