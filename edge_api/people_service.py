"""Answers of people to the requests of waiting runs, messages to runs, and interrupts."""

from edge_api.http.errors import RequestNotOpen
from edge_api.http.principal import Principal
from edge_api.http.request_models import AnswerFields
from edge_api.http.response_models import RunState
from edge_api.run_states import request_token, run_state
from edge_api.runs_service import RunService
from edge_api.settings import APPROVE_RUNS, WRITE_RUNS
from infra.contract.errors import InvalidInput, TransitionRefused
from infra.contract.redis_store.commands import RunCommands
from infra.contract.requests import GivenAnswer, OpenRequest
from infra.contract.runs import RunHead
from infra.contract.states import Outcome, Status

_ACTIVE = "a run that is queued, running or waiting"


class PeopleService:
    """Operations by which people take part in their runs. Every method raises RunGone as RunService does."""

    def __init__(self, store: RunCommands, runs: RunService) -> None:
        self._store = store
        self._runs = runs

    async def resume(self, principal: Principal, run_id: str, wanted: AnswerFields, *, key: str | None) -> RunState:
        """Answer open requests of a waiting run; it continues once none is open.

        Raises InvalidInput if the answers do not fit their requests, Forbidden without the scope that they need,
        TransitionRefused if the run does not wait, and RequestNotOpen if a request is not open, or if the request is
        not named though not exactly one is open.
        """
        wanted.check()
        for scope in _scopes(wanted):
            principal.require(scope)
        run = await self._runs.head(principal.user, run_id)
        # Without answers the store takes none: it says whether the call was carried out before, and what is open.
        answers = _by_request(run, wanted)
        token = request_token(principal.user, key)
        outcome, status, open_ids = await self._store.resume(run_id, answers, by=principal.user, token=token)
        if outcome is Outcome.REFUSED and status is Status.WAITING:
            raise RequestNotOpen(open_ids, named=wanted.answers is not None)
        return run_state("resume", run_id, (outcome, status), allowed="a run that waits for people")

    async def message(self, user: str, run_id: str, text: str, *, key: str | None) -> RunState:
        """Send a message to a run without an explicit plan. Raises TransitionRefused for others, and if it has ended.

        Raises LimitExceeded.
        """
        _check_listens("send a message to", await self._runs.head(user, run_id))
        # A prefix, so that a key of another action is not taken for a repeated message.
        token = f"message-{request_token(user, key)}"
        reply = await self._store.message(run_id, text, by=user, token=token)
        return run_state("message", run_id, reply, allowed=_ACTIVE)

    async def interrupt(self, user: str, run_id: str) -> RunState:
        """Stop the work on a run without an explicit plan, and let it wait. Raises TransitionRefused as `message`."""
        _check_listens("interrupt", await self._runs.head(user, run_id))
        return run_state("interrupt", run_id, await self._store.interrupt(run_id), allowed=_ACTIVE)


def _check_listens(action: str, run: RunHead) -> None:
    """Raise TransitionRefused for a run with an explicit plan: nobody would read the message or continue the run."""
    if run.brief.steps is not None:
        raise TransitionRefused(f"cannot {action} a run with an explicit plan; it does what its plan says", run.status)


def _scopes(wanted: AnswerFields) -> list[str]:
    """Return the scopes that the answers need: one for answers to questions, another one for approvals and denials."""
    approvals = [answer.approve is not None for answer in wanted.given()]
    return [WRITE_RUNS] * (not all(approvals)) + [APPROVE_RUNS] * any(approvals)


def _by_request(run: RunHead, wanted: AnswerFields) -> dict[str, GivenAnswer]:
    """Return the answers by the ids of their requests; none if a single answer does not say which request it is for."""
    known = {request.id: request for request in run.waiting.requests} if run.waiting else {}
    if wanted.answers is None:
        answers = dict(zip(known, wanted.given(), strict=True)) if len(known) == 1 else {}
    else:
        answers = dict(zip(wanted.answers, wanted.given(), strict=True))
    for name in answers.keys() & known.keys():
        _check_kind(known[name], answers[name], "$" if wanted.answers is None else f"$.answers.{name}")
    return answers


def _check_kind(request: OpenRequest, answer: GivenAnswer, at: str) -> None:
    """Raise InvalidInput if a question is answered by yes or no, or an approval by a text."""
    if request.kind == "approval" and answer.approve is None:
        raise InvalidInput(f"the request {request.id} asks for an approval: answer with 'approve'", at)
    if request.kind == "question" and answer.approve is not None:
        raise InvalidInput(f"the request {request.id} is a question: answer it with a text, not with 'approve'", at)
