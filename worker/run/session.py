"""Session of a claimed run: implements ToolSession. No program of it outlives the work on the run."""

import msgspec

from infra.contract.errors import SessionLost
from infra.contract.execution import Command, Executor, Session
from infra.contract.journal import SESSION
from infra.contract.queue import Claim
from infra.contract.redis_store import codec
from worker.toolkit.base import SessionProgram

MAX_SESSION_S = 3600.0
MAX_NOTE_CHARS = 4096
_CALL = "session"
"""Name of the execution, which belongs to no single call."""


class RunSession:
    """Session of one claimed run."""

    def __init__(self, run_id: str, fence: int, timeout_s: float, executor: Executor, note: str = "") -> None:
        self.note = note
        self._stored = note
        self._run_id = run_id
        self._fence = fence
        self._timeout_s = min(MAX_SESSION_S, timeout_s)
        self._executor = executor
        self._session: Session | None = None
        self._program: SessionProgram | None = None

    @classmethod
    def of(cls, claim: Claim, executor: Executor) -> "RunSession":
        """Return the session of a claimed run, with the note of its earlier owners."""
        note = msgspec.json.decode(claim.journal.get(SESSION, b'""'), type=str)
        return cls(claim.run.id, claim.run.fence, claim.run.spec.timeout_s, executor, note)

    @property
    def program(self) -> SessionProgram | None:
        """See ToolSession."""
        return self._program if self._session else None

    async def open(self, program: SessionProgram) -> None:
        """See ToolSession. The program is killed after MAX_SESSION_S at the latest."""
        await self.close()
        command = Command(
            self._run_id,
            _CALL,
            "python",
            program.source,
            self._timeout_s,
            program.limits,
            network=program.network,
            mounts=program.mounts,
            etc=program.etc,
        )
        self._session = await self._executor.open(command, program.max_reply_bytes, self._fence)
        self._program = program

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """See ToolSession."""
        if self._session is None:
            raise SessionLost("there is none")
        try:
            return await self._session.ask(request, timeout_s)
        except BaseException:
            # The program has ended, or its reply to this request would be taken for the reply to the next one.
            self._session = None
            raise

    async def close(self) -> None:
        """End the program, if one runs."""
        if session := self._session:
            self._session = None
            await session.close()

    def take_note(self) -> dict[str, str]:
        """Return the journal entry of a new note, for the write that makes the call count."""
        if self.note == self._stored:
            return {}
        self._stored = self.note = self.note[:MAX_NOTE_CHARS]
        return {SESSION: codec.encode(self.note)}
