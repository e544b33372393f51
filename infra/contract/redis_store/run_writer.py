"""Base of the classes whose scripts change runs: `RunCommands` of the API and `WorkQueue` of the workers."""

from typing import ClassVar

from infra.contract.keys import DEFAULT_RETENTION_S, Keys
from infra.contract.redis import Redis, Reply
from infra.contract.redis_store import codec, scripts
from infra.contract.redis_store.reader import RunReader
from infra.contract.webhooks import EventSink


class RunWriter(RunReader):
    """Scripts that change runs, and all reads.

    Every method raises StoreUnavailable if Redis did not reply in time; the change may then have been made, and calling
    the method again with the same arguments is safe. `retention_s` is how long a finished run is kept. `events` learns
    of entries in the outbox of webhooks.
    """

    caller: ClassVar[type[scripts.ScriptCaller]] = scripts.ScriptCaller
    """Class that calls the scripts."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys | None = None,
        *,
        retention_s: int = DEFAULT_RETENTION_S,
        events: EventSink | None = None,
    ) -> None:
        super().__init__(redis, keys or Keys())
        self._scripts = self.caller(redis, self.keys)
        self._retention_s = retention_s
        self._events = events

    def _note_event(self, reply: Reply) -> None:
        """Pass on the entry that a script has put into the outbox: the third item of its reply, if it has one.

        If the reply was lost, the repeated call returns no entry: it is published when it is overdue.
        """
        entry = codec.items(reply)[2:]
        if entry and entry[0] and self._events:
            self._events.noted(str(entry[0]))
