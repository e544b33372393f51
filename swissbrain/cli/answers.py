"""Answers of the person at the terminal to the requests of a waiting run."""

import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import typer

from swissbrain.agent import OpenRequest
from swissbrain.callbacks import Notify
from swissbrain.cli.explanations import explain
from swissbrain.cli.open_requests import how_to_answer, request_text
from swissbrain.cli.screen import console
from swissbrain.errors import ApiError, ClientError
from swissbrain.models import Event, Gap

if TYPE_CHECKING:
    from swissbrain import Client


def can_ask() -> bool:
    """Return True if a person can read requests and type answers."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class Answers:
    """Answers to what a followed run asks: by the person at the terminal, or by commands that a line names."""

    def __init__(self, client: "Client", run_id: str, notify: Notify, *, asks: bool) -> None:
        self._client = client
        self._run_id = run_id
        self._notify = notify
        self._asks = asks

    def note(self, item: Event | Gap) -> None:
        """Ask for the answers, or say how to give them, if the run has begun to wait and still does."""
        if not isinstance(item, Event) or item.type != "run.waiting":
            return
        asked = item.data.get("requests")
        ids = [each.get("id") for each in asked if isinstance(each, dict)] if isinstance(asked, list) else []
        try:
            requests = self._open(ids)
        except ClientError as exc:
            self._notify(f"{explain(exc)}; 'swissbrain resume {self._run_id}' answers")
            return
        if self._asks:
            ask(self._client, self._run_id, requests, self._notify)
        else:
            for request in requests:
                self._notify(f"the run waits; {how_to_answer(self._run_id, request)}")

    def _open(self, ids: Collection[object]) -> list[OpenRequest]:
        """Return the requests of these ids that are open now: a log also has earlier waits."""
        waiting = self._client.get_run(self._run_id).waiting
        return [request for request in waiting.requests if request.id in ids] if waiting else []


def ask(client: "Client", run_id: str, requests: Sequence[OpenRequest], notify: Notify) -> None:
    """Show each request, and answer it with what the person types. Ctrl-D leaves it and all further ones open.

    An answer that is refused is one line: most often, another person was faster.
    """
    for number, request in enumerate(requests):
        typer.echo(err=True)
        console(stderr=True).print(request_text(request, console(stderr=True)), soft_wrap=True)
        try:
            _ask_for(client, run_id, request)
        except EOFError:
            for left in requests[number:]:
                notify(f"not answered; {how_to_answer(run_id, left)}")
            return
        except ClientError as exc:
            if isinstance(exc, ApiError) and exc.status == HTTPStatus.CONFLICT:
                notify(f"answered already, or no longer asked: {explain(exc)}")
            else:
                notify(f"{explain(exc)}; {how_to_answer(run_id, request)}")


def _ask_for(client: "Client", run_id: str, request: OpenRequest) -> None:
    """Read an answer, and send it. Raises EOFError without one, and ClientError."""
    if request.kind == "approval":
        while True:
            word, _, comment = _read("approve exactly this call? y or N, and a comment after it: ").partition(" ")
            if word.lower() in {"y", "yes"}:
                client.approve(run_id, request.id, comment=comment.strip() or None)
                return
            if word.lower() in {"n", "no", ""}:
                client.deny(run_id, request.id, comment=comment.strip() or None)
                return
    text = _read("number or answer: " if request.choices else "answer: ")
    if not text:
        raise EOFError
    if len(text) <= len(str(len(request.choices))) and text.isdecimal() and 1 <= int(text) <= len(request.choices):
        text = request.choices[int(text) - 1]
    client.resume(run_id, text, request=request.id)


def _read(prompt: str) -> str:
    """Return a line that is typed from now on, so that nothing typed earlier answers. Raises EOFError."""
    with suppress(ImportError, OSError):  # Windows has no termios
        import termios

        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    typer.echo(prompt, err=True, nl=False)
    typed = sys.stdin.readline()
    if not typed:
        typer.echo(err=True)
        raise EOFError
    return typed.strip()
