"""One call of a pod: fetch the manifest and the files, run the program, store what it left, and the result last."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from infra.contract.errors import ContractError, ExecutorUnavailable, InputChanged, LimitExceeded
from infra.contract.execution import OutputStream
from infra.local_executor import guard, sandbox
from infra.local_executor.output import OutputCapture, Pace
from infra.local_executor.run_dirs import chown_tree
from infra.pod_runner import program, task
from infra.pod_runner.line_log import LineLog
from infra.pod_runner.private_files import chunks_of, path_of, private_file
from infra.pod_runner.transfer import TransferFailed, Transfers
from infra.pod_runner.workspace import PodChanges, PodWorkspace

MANIFEST_S = 60.0
"""Time limit for fetching the manifest."""
_CODES: dict[type[Exception], str] = {
    ExecutorUnavailable: "executor_unavailable",
    InputChanged: "input_changed",
    LimitExceeded: "limit_exceeded",
    TransferFailed: "files_unavailable",
}


@dataclass
class PodOutcome:
    """Result of a call, as `result.json` in the store has it (infra/k8s_executor/protocol.py has its type there).

    `error` is a code and a message if the call could not be carried out. `lines` counts the numbered lines.
    """

    exit_code: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    duration_ms: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    lines: int = 0
    error: tuple[str, str] | None = None
    changes: dict[str, Any] | None = None


class PodCall:
    """Call with the manifest at `url`. `uid`: uid of the program; 0 is the uid of the runner."""

    def __init__(self, url: str, workspace: Path, uid: int) -> None:
        self.program_dead = asyncio.Event()
        self.outcome = PodOutcome()
        self._url = url
        self._root = workspace
        self._uid = uid
        self._stopped = Event()
        self._program: program.Program | None = None
        self._captures: dict[OutputStream, tuple[int, OutputCapture]] = {}

    def cancel(self) -> None:
        """Stop fetching or kill the program. Its output and its files are stored all the same."""
        if not self.program_dead.is_set():
            self.outcome.cancelled = True
        self._stopped.set()
        if self._program:
            self._program.stop()

    async def fetch(self) -> task.PodTask:
        """Fetch the manifest. Raises TransferFailed, BadManifest."""
        transfers = Transfers(time.monotonic() + MANIFEST_S, self._stopped)
        return task.parse(await asyncio.to_thread(transfers.fetch, "the manifest", self._url, task.MAX_BYTES))

    async def run(self, given: task.PodTask, log: LineLog) -> None:
        """Carry out the task and store its result. Raises TransferFailed if the result could not be stored."""
        workspace = PodWorkspace(self._root, given)
        try:
            await self._execute(given, workspace, log)
        except (ContractError, TransferFailed, OSError) as error:
            # A transfer that failed because the call was cancelled is no failure of the store.
            if not (self.outcome.cancelled and isinstance(error, TransferFailed)):
                self.outcome.error = _code(error), str(error)
        finally:
            self.program_dead.set()
            log.close()
        # A cancellation does not stop these transfers, because the result has to say that the call was cancelled.
        transfers = Transfers(time.monotonic() + given.transfer_s, Event())
        await asyncio.to_thread(self._store, given, workspace, log, transfers)

    async def _execute(self, given: task.PodTask, workspace: PodWorkspace, log: LineLog) -> None:
        transfers = Transfers(time.monotonic() + given.transfer_s, self._stopped)
        await asyncio.to_thread(workspace.materialise, transfers)
        if self._uid:
            chown_tree(self._root, self._uid)
        if self._stopped.is_set():
            return
        command, limits = given.command, given.limits
        total_bytes, entries = (sandbox.DISK_FACTOR * limit for limit in (limits.total_bytes, limits.entries))
        disks = [
            partial(guard.disk_excess, str(self._root), total_bytes, entries),
            partial(guard.disk_excess, str(program.TEMPORARY), program.TEMPORARY_BYTES, program.TEMPORARY_FILES),
        ]
        self._program = running = program.start(command, self._root, self._uid, given.proxy_url)
        if self._stopped.is_set():
            running.stop()
        pace = Pace()
        ending = asyncio.ensure_future(
            asyncio.to_thread(running.wait, command.timeout_s, command.limits.memory_bytes, disks)
        )
        ending.add_done_callback(lambda _: pace.end())
        ending.add_done_callback(lambda _: self.program_dead.set())
        streams: tuple[OutputStream, OutputStream] = ("stdout", "stderr")
        readings: list[asyncio.Future[None]] = []
        for stream, pipe in zip(streams, running.outputs, strict=True):
            fd = private_file()
            capture = OutputCapture(path_of(fd), command.limits.output_bytes, pace)
            self._captures[stream] = fd, capture
            readings.append(
                asyncio.ensure_future(capture.read_all(await program.reader_of(pipe), partial(log.add, stream)))
            )
        try:
            await asyncio.gather(ending, *readings)
        except BaseException:  # such as a full disk for the output
            running.stop()
            await asyncio.wait({ending})
            for reading in readings:
                reading.cancel()
            raise
        ended = ending.result()
        if not ended.started:
            raise ExecutorUnavailable(f"the program could not be started: {self._text('stderr')}")
        self.outcome.exit_code = None if ended.timed_out else ended.exit_code
        self.outcome.timed_out, self.outcome.duration_ms = ended.timed_out, ended.duration_ms

    def _store(self, given: task.PodTask, workspace: PodWorkspace, log: LineLog, transfers: Transfers) -> None:
        outcome, slots = self.outcome, given.slots
        outcome.lines = log.count
        urls: dict[OutputStream, str] = {"stdout": slots.stdout, "stderr": slots.stderr}
        for stream, (fd, capture) in self._captures.items():
            setattr(outcome, f"{stream}_bytes", capture.total_bytes)
            _put(transfers, stream, urls[stream], fd, os.fstat(fd).st_size)
        if log.count:
            _put(transfers, "the lines", slots.lines, log.fd, log.size_bytes)
        if self._captures and outcome.error is None:
            try:
                changes = workspace.changes()
                outcome.changes = _as_json(changes, workspace.store(changes, transfers))
            except (LimitExceeded, OSError) as error:
                outcome.error = _code(error), str(error)
        body = json.dumps(asdict(outcome)).encode()
        transfers.store("the result", slots.result, lambda: [body], len(body))

    def _text(self, stream: OutputStream) -> str:
        return b"".join(chunks_of(self._captures[stream][0], 4096)).decode(errors="replace").strip()


def _as_json(changes: PodChanges, slots: dict[str, int | None]) -> dict[str, Any]:
    files = [
        {
            "path": path,
            "slot": slots[path],
            "size_bytes": stamp.size_bytes,
            "sha256": digest,
            "mode": stamp.mode,
            "mtime_ns": stamp.mtime_ns,
        }
        for path, (stamp, digest) in sorted(changes.files.items())
    ]
    return {
        "files": files,
        "metadata": changes.metadata,
        "deleted": changes.deleted,
        "folders": changes.folders,
        "skipped": changes.skipped,
        "unkept_folders": changes.unkept_folders,
    }


def _code(error: Exception) -> str:
    """Return the code of an error; any other error, such as a full disk, is exhaustion of the host."""
    return _CODES.get(type(error), "host_exhausted")


def _put(transfers: Transfers, what: str, url: str, fd: int, size_bytes: int) -> None:
    def chunks() -> Iterator[bytes]:
        return chunks_of(fd, size_bytes)

    transfers.store(what, url, chunks, size_bytes)
