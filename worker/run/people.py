"""People in a run, for strategies: requests with which a run waits, their answers, and messages to the run."""

from collections.abc import Collection, Sequence

import msgspec

from infra.contract.requests import MAX_EXPIRY_MS, OpenRequest, StoredAnswer, UserMessage, check_requests, request_id
from infra.contract.runs import RunRecord
from worker.run.context import RunContext
from worker.run.emitter import now_ms

LONGEST_EXPIRY_MS = MAX_EXPIRY_MS - 3_600_000
"""Time for the answers that a run cannot do without. The script that stores a request may run later than it is made,
and its clock may differ."""


class Inbox(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Messages to the run. `interrupt`: fence of the claim whose interrupt the first of them answers."""

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


def interrupt_answer(run: RunRecord, heard: Collection[int | None]) -> tuple[int, StoredAnswer] | None:
    """Return the answer to the last interrupt, and the fence of the claim that was interrupted.

    None if there is no answer, or if the fence is among `heard`.
    """
    if not run.answers:
        return None
    for fence in range(run.fence - 1, 0, -1):
        answer = run.answers.get(interrupt_request(run.id, fence).id)
        if answer is not None:
            return None if fence in heard else (fence, answer)
    return None


async def read_inbox(
    context: RunContext,
    key: str,
    following: str,
    heard: Collection[int | None],
    before: Sequence[UserMessage] = (),
) -> Inbox:
    """Return the messages that have come since the last call, journaled under `key` and marked as read in one write.

    `before` comes first, and then the answer to an interrupt, unless the fence of the interrupted claim is among
    `heard`. Nothing is stored if there are no messages. Once the journal has `following`, the key of what the messages
    were read for, later messages are left to a later call.
    """
    if context.knows(key):
        return await context.recall(key, Inbox)
    if context.knows(following):
        return Inbox()
    messages, interrupt = await context.new_messages(), interrupt_answer(context.run, heard)
    if interrupt:
        _, answer = interrupt
        messages.insert(0, UserMessage(text=answer.input or "", by=answer.by or "", at_ms=answer.at_ms))
    inbox = Inbox(messages=[*before, *messages], interrupt=interrupt[0] if interrupt else None)

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
