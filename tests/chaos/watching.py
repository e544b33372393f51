"""One run, looked at through the API while something is done to those who work on it."""

import io
from collections.abc import Callable

from swissbrain.models import Event
from tests.chaos.site import Site
from tests.support.waiting import wait_until

GENEROUS_S = 60.0
"""How long a busy machine may take for what happens at once on an idle one."""


def log(place: Site, run_id: str) -> list[Event]:
    with place.client() as client:
        events = [event for event in client.logged(run_id) if isinstance(event, Event)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


def reached(place: Site, run_id: str, wanted: Callable[[Event], bool], what: str) -> Event:
    """The first event that is wanted, once it is there."""
    wait_until(lambda: any(map(wanted, log(place, run_id))), what, timeout_s=GENEROUS_S)
    return next(filter(wanted, log(place, run_id)))


def ended(place: Site, run_id: str, status: str = "succeeded", *, ends: int = 1) -> list[Event]:
    """The log once the run has ended like that, for the first time or as often as `ends` says."""
    with place.client() as client:
        wait_until(lambda: client.get_run(run_id).ended, "the run ends", timeout_s=GENEROUS_S)
        assert client.get_run(run_id).status == status
    events = log(place, run_id)
    assert [event.type for event in events].count("run.finished") == ends
    assert events[-1].type == "run.finished"
    return events


def create(place: Site, *steps: dict[str, object]) -> str:
    with place.client() as client:
        return client.create_run(plan=steps, max_attempts=20).run_id


def holder(event: Event) -> str:
    return str(event.data["worker"])


def says(text: str) -> Callable[[Event], bool]:
    return lambda event: event.type == "tool.output" and event.data["text"] == text


def is_type(kind: str) -> Callable[[Event], bool]:
    return lambda event: event.type == kind


def effect_steps(place: Site, run_id: str) -> list[str]:
    """The steps whose effects a run has left, in order."""
    lines = place.effects_file.read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith(run_id)]


def workspace(place: Site, run_id: str) -> dict[str, bytes]:
    """The files of a run."""
    found = {}
    with place.client() as client:
        for file in client.files(run_id):
            content = io.BytesIO()
            client.download(run_id, file.path, content)
            found[file.path] = content.getvalue()
    return found
