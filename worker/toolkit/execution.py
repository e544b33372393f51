"""What the executing tools share: the log's cap on output, the kept output, the meaning of the end."""

from pathlib import Path

from infra.contract.execution import Execution, Interpreter, OutputStream
from infra.host_limits import translate_exhaustion
from worker.toolkit.base import ToolContext, ToolFailed, ToolResult

LOGGED_BYTES = 256 * 1024
"""Of a call's output the log takes so much; if there is more, all of it is kept as files below `.run/`."""
TAIL_BYTES = 4096


class ExecutionResult(ToolResult, frozen=True, kw_only=True):
    """How a program ended; the tails are the last 4 KB of its output.

    The executor keeps output up to its limit; `*_bytes` count all that was printed.
    """

    exit_code: int | None
    duration_ms: int
    stdout_tail: str
    stderr_tail: str
    stdout_bytes: int
    stderr_bytes: int


class LoggedOutput:
    """Logs lines until the cap is reached, and says so once."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._left = LOGGED_BYTES

    def cut(self) -> bool:
        """Whether there was more than the log took."""
        return self._left < 0

    async def line(self, stream: OutputStream, text: str, more: bool) -> None:
        """Log one line of output, or a part of it if there is `more`."""
        if self.cut():
            return
        self._left -= len(text.encode()) + 1
        if self.cut():
            text, more = f"… the output goes on in {_kept(self._context, stream)}", False
        await self._context.output(stream, text, more=more)


async def execute(context: ToolContext, interpreter: Interpreter, source: str, timeout_s: float) -> ExecutionResult:
    """Execute a program and log what it prints and changes.

    Raises ToolFailed with code `exit_code` or `timeout`, and what the executor raises.
    """
    output = LoggedOutput(context)
    ended = await context.execute(interpreter, source, timeout_s, output.line)
    context.changed(ended.changes)
    with translate_exhaustion():
        kept = await _keep(context, ended) if output.cut() else []
        result = ExecutionResult(
            exit_code=ended.exit_code,
            duration_ms=ended.duration_ms,
            stdout_tail=_tail(ended.stdout),
            stderr_tail=_tail(ended.stderr),
            stdout_bytes=ended.stdout_bytes,
            stderr_bytes=ended.stderr_bytes,
            kept=tuple(kept),
        )
    if ended.timed_out:
        raise ToolFailed("timeout", f"killed after its timeout of {timeout_s:g} s", result)
    if ended.exit_code != 0:
        lines = result.stderr_tail.strip().splitlines()
        raise ToolFailed("exit_code", f"exit code {ended.exit_code}{f': {lines[-1]}' if lines else ''}", result)
    return result


async def _keep(context: ToolContext, ended: Execution) -> list[str]:
    """Store the whole output (up to the executor's limit) in the workspace."""
    kept = []
    for stream, path in (("stdout", ended.stdout), ("stderr", ended.stderr)):
        if data := path.read_bytes():
            await context.files.write(_kept(context, stream), data)
            kept.append(_kept(context, stream))
    return kept


def _kept(context: ToolContext, stream: str) -> str:
    return f".run/{context.call}.{stream}"


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read(TAIL_BYTES).decode(errors="replace")
