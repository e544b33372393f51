"""Shared part of the tools that execute programs: limited output in the log, complete output in files, result."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import UNSET, UnsetType

from infra.contract.execution import Execution, Interpreter, LinePart, OutputStream
from infra.host_limits import translate_exhaustion
from worker.toolkit.base import ToolContext, ToolFailed, ToolResult
from worker.toolkit.failure import description
from worker.toolkit.network import refused_text

LOGGED_BYTES = 256 * 1024
"""Limit for the output of one call in the log; if there is more, all of it is stored in files below `.run/`."""
TAIL_BYTES = 4096
HEAD_BYTES = 3072


class ExecutionResult(ToolResult, frozen=True, kw_only=True):
    """Result of a program; the tails are the last 4 KB of its output.

    `*_bytes` count all that was printed; the executor stores it only up to its limit. `exit_code` is None after a
    timeout. Heads are for models alone: up to 3 KB from the start of an output that is longer than its tail.
    """

    exit_code: int | None
    duration_ms: int
    stdout_tail: str
    stderr_tail: str
    stdout_bytes: int
    stderr_bytes: int
    stdout_head: str = ""
    stderr_head: str = ""


class LoggedOutput:
    """Logger for lines of output that stops at LOGGED_BYTES, with one line that names the file to read."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._remaining = LOGGED_BYTES
        self._logged: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._is_overwritten = False

    def is_truncated(self) -> bool:
        """Return whether the log holds only a part of the output."""
        return self._remaining < 0

    def has_every_byte(self, ended: Execution) -> bool:
        """Return whether the lines in the log tell every byte of the output, as a log of plain text does."""
        if self.is_truncated() or self._is_overwritten:
            return False
        return all(b"".join(self._logged[name]) == getattr(ended, name).read_bytes() for name in self._logged)

    async def log_line(self, stream: OutputStream, part: LinePart) -> bool:
        """Log a line of output, or a part of it. Return False if no further lines are logged."""
        if not self.is_truncated():
            text = part.text.encode()
            self._remaining -= len(text) + 1
            self._is_overwritten = self._is_overwritten or part.end == "\r"
            self._logged[stream].append(text if part.more else text + part.end.encode())
            if self.is_truncated():
                part = LinePart(f"… output truncated; complete output: {_output_path(self._context, stream)}")
            await self._context.output(
                stream, part.text, more=part.more, replaces_line=part.replaces, line_end=part.end
            )
        return not self.is_truncated()


async def execute(
    context: ToolContext,
    interpreter: Interpreter,
    source: str,
    timeout_s: float | UnsetType,
    network: Sequence[str] = (),
) -> ExecutionResult:
    """Execute a program; log its output and the files that it changed. Without `timeout_s`, all time left is allowed.

    `network`: entries that the program may reach, as `granted` returns them.

    Raises ToolFailed with code `exit_code` or `timeout`, and the errors of the executor.
    """
    output = LoggedOutput(context)
    setting, limit_s = "`timeout_s` in the arguments of the step", None if timeout_s is UNSET else timeout_s
    if timeout_s is UNSET:
        timeout_s = context.time_left_s
        setting = "what was left of the `timeout_s` of the step or of the run, at most 3600 s"
    ended = await context.execute(interpreter, source, limit_s, output.log_line, network)
    context.changed(ended.changes)
    with translate_exhaustion():
        is_read = output.has_every_byte(ended) and not (context.for_model and _is_long(ended))
        paths = [] if is_read else await _store_output(context, ended)
        result = ExecutionResult(
            exit_code=ended.exit_code,
            duration_ms=ended.duration_ms,
            stdout_tail=_tail(ended.stdout),
            stderr_tail=_tail(ended.stderr),
            stdout_bytes=ended.stdout_bytes,
            stderr_bytes=ended.stderr_bytes,
            stdout_head=_head(ended.stdout) if context.for_model else "",
            stderr_head=_head(ended.stderr) if context.for_model else "",
            kept=tuple(paths),
        )
    if ended.timed_out:
        ran_s = ended.duration_ms / 1000
        if abs(ran_s - timeout_s) > max(5.0, timeout_s / 10):  # a program that was adopted, or waited for its worker
            raise ToolFailed("timeout", f"killed after {ran_s:.0f} s, when the time of its step was over", result)
        raise ToolFailed("timeout", f"killed after its timeout of {timeout_s:g} s ({setting})", result)
    if ended.exit_code != 0:
        message = description(ended.exit_code, _head_and_tail(ended.stderr))
        if ended.network and ended.network.refused:
            message += f"; {refused_text(ended.network)}"
        raise ToolFailed("exit_code", message, result)
    return result


async def _store_output(context: ToolContext, ended: Execution) -> list[str]:
    """Store the output, up to the executor's limit, in the workspace; return the paths."""
    paths = []
    for stream, file in (("stdout", ended.stdout), ("stderr", ended.stderr)):
        if data := file.read_bytes():
            path = _output_path(context, stream)
            await context.files.write(path, data)
            paths.append(path)
    return paths


def _output_path(context: ToolContext, stream: str) -> str:
    return f".run/{context.call}.{stream}"


def _is_long(ended: Execution) -> bool:
    return max(ended.stdout_bytes, ended.stderr_bytes) > TAIL_BYTES


def _head(path: Path) -> str:
    """Return the first 3 KB of a file, without those that its tail has."""
    with path.open("rb") as file:
        return file.read(max(0, min(HEAD_BYTES, path.stat().st_size - TAIL_BYTES))).decode(errors="replace")


def _head_and_tail(path: Path) -> str:
    """Return the first 3 KB and the last 4 KB of a file; what is between them is an empty line."""
    head, tail = _head(path), _tail(path)
    # The first line of the tail is incomplete.
    return f"{head.rpartition(chr(10))[0]}\n\n{tail.partition(chr(10))[2]}" if head else tail


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read(TAIL_BYTES).decode(errors="replace")
