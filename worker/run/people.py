"""People in a run, for strategies: requests with which a run waits, and their answers."""

import time
from collections.abc import Sequence

from infra.contract.requests import OpenRequest, StoredAnswer, check_requests
from worker.run.context import RunContext


class Waits(Exception):
    """The run has to wait for people: it gives up its slot and its lease until they have answered `requests`.

    Raises ValueError if a run may not wait with these requests.
    """

    def __init__(self, requests: Sequence[OpenRequest]) -> None:
        check_requests(requests, time.time_ns() // 1_000_000)
        super().__init__(f"the run waits with {len(requests)} requests")
        self.requests = requests


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
