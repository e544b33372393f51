"""Commands by which people take part in a run: `resume`, `approve`, `deny`, `say`, `interrupt`."""

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swissbrain.agent import OpenRequest
from swissbrain.cli.access import connect
from swissbrain.cli.answers import ask, can_ask
from swissbrain.cli.errors import CommandError
from swissbrain.cli.exit_codes import USAGE
from swissbrain.cli.open_requests import request_text
from swissbrain.cli.options import Follow, Json, NoInput, RunId
from swissbrain.cli.output import follow_run, print_json
from swissbrain.cli.screen import console
from swissbrain.cli.selection import STDIN
from swissbrain.cli.terminal import note, plain
from swissbrain.errors import ApiError, ClientError
from swissbrain.models import Event, RunState

if TYPE_CHECKING:
    from swissbrain import Client

Request = Annotated[
    str | None, typer.Argument(metavar="[REQUEST]", help="Id of the request; may be left out if only one is open.")
]
Comment = Annotated[str | None, typer.Option(metavar="TEXT", help="Comment that the run reads.")]


def resume(
    run_id: RunId,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEXT]", help="Answer; - reads it from standard input. Without it, a terminal asks for it."
        ),
    ] = None,
    request: Annotated[
        str | None, typer.Option(metavar="REQUEST", help="Id of the question, if several are open.")
    ] = None,
    follow: Follow = False,
    no_input: NoInput = False,
    as_json: Json = False,
) -> None:
    """Answer a waiting run: one question by TEXT, or on a terminal everything that it asks."""
    if text is None and (no_input or not can_ask()):
        raise CommandError("give TEXT; without it, only a terminal can ask for the answer")
    if text == STDIN:
        text = _standard_input()
    with connect(note) as client:
        # Read before: the events that follow the input come after this one.
        after = client.get_run(run_id).last_seq if follow else 0
        state = _ask_all(client, run_id, request) if text is None else client.resume(run_id, text, request=request)
        if follow:
            follow_run(client, run_id, after=after, as_json=as_json, no_input=no_input)
        else:
            _show(state, as_json=as_json)


def approve(run_id: RunId, request: Request = None, comment: Comment = None, as_json: Json = False) -> None:
    """Allow a waiting run exactly the call that it asks for."""
    _decide(run_id, request, comment, "approved", as_json=as_json)


def deny(run_id: RunId, request: Request = None, comment: Comment = None, as_json: Json = False) -> None:
    """Refuse a waiting run the call that it asks for. The run continues without it."""
    _decide(run_id, request, comment, "denied", as_json=as_json)


def say(
    run_id: RunId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Message; - reads it from standard input.")],
    as_json: Json = False,
) -> None:
    """Send a message to a run, which reads it before its next step."""
    if text == STDIN:
        text = _standard_input()
    with connect(note) as client:
        _show(client.say(run_id, text), as_json=as_json)


def interrupt(run_id: RunId, as_json: Json = False) -> None:
    """Stop what a run is doing and let it wait; `resume` says how it continues."""
    with connect(note) as client:
        state = client.interrupt(run_id)
    # A running run waits as soon as its worker has stopped it.
    _show(state, as_json=as_json, shown="interrupt requested" if state.status == "running" else "")


def _standard_input() -> str:
    from swissbrain.cli.plan_file import read_text  # with its library for YAML, which is slow to import

    return read_text(Path(STDIN))


def _show(state: RunState, *, as_json: bool, shown: str = "") -> None:
    print_json(state) if as_json else typer.echo(plain(shown or state.status))


def _ask_all(client: "Client", run_id: str, request_id: str | None) -> RunState:
    """Ask the person for the answers to the open requests, or to one of them; return the state of the run then."""
    run = client.get_run(run_id)
    requests = [each for each in run.waiting.requests if request_id in {None, each.id}] if run.waiting else []
    if not requests:
        which = "an answer" if request_id is None else f"an answer to {request_id}"
        raise CommandError(f"the run does not wait for {which}; it is {run.status}")
    ask(client, run_id, requests, note)
    run = client.get_run(run_id)
    return RunState(run_id=run_id, status=run.status, cancel_requested=run.cancel_requested)


def _decide(run_id: str, request_id: str | None, comment: str | None, decision: str, *, as_json: bool) -> None:
    with connect(note) as client:
        if request_id is None:
            request = _only_approval(client, run_id)
            screen = console(stderr=True)
            screen.print(request_text(request, screen), soft_wrap=True)
            # The caller has not named this call. A script cannot be asked.
            if decision == "approved" and can_ask() and not typer.confirm("approve exactly this call?", err=True):
                note("nothing was changed")
                raise typer.Exit(USAGE)
            request_id = request.id
        decide = client.approve if decision == "approved" else client.deny
        try:
            state = decide(run_id, request_id, comment=comment)
        except ApiError as exc:
            earlier = _earlier_answer(client, run_id, request_id) if exc.status == HTTPStatus.CONFLICT else None
            if earlier is None:
                raise
            by = f" by {earlier.data['by']}" if "by" in earlier.data else ""
            note(f"already {earlier.data.get('decision')}{by}")
            raise typer.Exit(0 if earlier.data.get("decision") == decision else USAGE) from None
    _show(state, as_json=as_json)


def _only_approval(client: "Client", run_id: str) -> OpenRequest:
    run = client.get_run(run_id)
    requests = [request for request in run.waiting.requests if request.kind == "approval"] if run.waiting else []
    if not requests:
        if run.waiting:
            how = f"'swissbrain resume {run_id}' gives it"
            raise CommandError(f"the run waits for an answer, not for an approval; {how}")
        raise CommandError(f"the run does not wait for an approval; it is {run.status}")
    if len(requests) > 1:
        ids = ", ".join(request.id for request in requests)
        raise CommandError(f"the run waits for several approvals: name one of {ids}; 'swissbrain show' shows them")
    return requests[0]


def _earlier_answer(client: "Client", run_id: str, request_id: str) -> Event | None:
    """Return the event of the answer that the request has got already, if the log has it."""
    try:
        given = client.logs(run_id, tail=100, event_type="run.input")
    except ClientError:
        return None
    return next((item for item in given if isinstance(item, Event) and item.data.get("request") == request_id), None)
