"""People in a run, for strategies: requests with which a run waits, their answers, and messages to the run."""

from collections.abc import Sequence

import msgspec

from infra.contract.requests import MAX_EXPIRY_MS, OpenRequest, StoredAnswer, UserMessage, check_requests, request_id
from infra.contract.runs import RunRecord
from worker.run.context import RunContext
from worker.run.emitter import now_ms

LONGEST_EXPIRY_MS = MAX_EXPIRY_MS - 3_600_000
"""Time for the answers that a run cannot do without. The script that stores a request may run later than it is made,
and its clock may differ."""


class Inbox(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Messages to the run. `interrupt`: fence of the last claim whose interrupt one of them answers."""

    messages: Sequence[UserMessage] = ()
    interrupt: int | None = None


class Waits(Exception):
    """The run has to wait for people: it gives up its slot and its lease until they have answered `requests`.

    Raises ValueError if a run may not wait with these requests.
    """

    def __init__(self, requests: Sequence[OpenRequest]) -> None:
        check_requests(requests, now_ms())
        super().__init__(f"the run waits with {len(requests)} requests")
        self.requests = requests


def interrupt_request(run_id: str, fence: int) -> OpenRequest:
    """Return the request with which a run waits after an interrupt. A strategy takes its answer for a message."""
    return OpenRequest(
        id=request_id(run_id, f"interrupt:{fence}", "", None),
        kind="question",
        question="The run was interrupted. What shall it do now?",
        expires_ms=now_ms() + LONGEST_EXPIRY_MS,
        on_expiry="fail",
    )


def interrupt_answers(run: RunRecord, heard: int) -> list[tuple[int, StoredAnswer]]:
    """Return the answers to interrupts of claims after the fence `heard`, each with the fence of its claim."""
    if not run.answers:
        return []
    ids = ((fence, interrupt_request(run.id, fence).id) for fence in range(heard + 1, run.fence))
    return [(fence, run.answers[each]) for fence, each in ids if each in run.answers]


async def read_inbox(
    context: RunContext,
    key: str,
    following: str,
    heard: int,
    before: Sequence[UserMessage] = (),
) -> Inbox:
    """Return the messages that have come since the last call, journaled under `key` and marked as read in one write.

    `before` comes first, and then the answers to interrupts of claims after the fence `heard`: several, if the run was
    interrupted again before it could read the first one. Nothing is stored if there are no messages. Once the journal
    has `following`, the key of what the messages were read for, later messages are left to a later call.
    """
    if context.knows(key):
        return await context.recall(key, Inbox)
    if context.knows(following):
        return Inbox()
    messages, given = await context.new_messages(), interrupt_answers(context.run, heard)
    answers = [UserMessage(text=each.input or "", by=each.by or "", at_ms=each.at_ms) for _, each in given]
    inbox = Inbox(messages=[*before, *answers, *messages], interrupt=given[-1][0] if given else None)

    async def taken() -> Inbox:
        return inbox

    return await context.once(key, Inbox, taken) if inbox.messages else inbox


async def ask(context: RunContext, key: str, requests: Sequence[OpenRequest]) -> dict[str, StoredAnswer]:
    """Return the answers to these requests by their ids, journaled under `key`. Raises Waits until all are answered.

    An answer counts only for the id of its request, which `infra.contract.requests.request_id` derives from the place
    and the exact content of the request: an answer to another one never reaches this one.
    """

    async def answers() -> dict[str, StoredAnswer]:
        given = context.run.answers
        if any(request.id not in given for request in requests):
            raise Waits(requests)
        return {request.id: given[request.id] for request in requests}

    # Flushed, so that no call which depends on an answer begins before the answer is in the journal.
    return await context.once(key, dict[str, StoredAnswer], answers, flush=True)
