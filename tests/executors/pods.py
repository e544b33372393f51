"""Pods without a cluster: the runner as PID 1 of a bubblewrap container, as the restricted profile has it.

Network and object store are real. The runner has no capability and a uid of its own if the tests run as root.
"""

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra.contract.errors import SessionLost
from infra.contract.execution import Command, Execution, OnLine, Session
from infra.contract.files import DirectoryFiles
from infra.contract.lending import Loan
from infra.k8s_executor.control import PodControl
from infra.k8s_executor.pod_call import PodCalls, prepare
from infra.k8s_executor.pod_session import PodSessionClient
from infra.k8s_executor.stored_call import StoredCall
from infra.local_executor import sandbox
from infra.pod_runner.__main__ import CAPABILITIES
from infra.workspace import S3RunFiles
from tests.support.processes import children_of
from tests.support.waiting import wait_until

UID = 400_000 + os.getpid() % 100_000
"""Uid of the runner and the program for tests that run as root. Each test process has its own, because the kernel
counts the processes of a uid, and pods of other tests run at the same time."""


class FollowedCalls(PodCalls):
    """Calls of one pod, followed from the first line to the result."""

    async def follow(self, loan: Loan, command: Command, on_line: OnLine, output: Path) -> Execution:
        """Pass on the lines, then take over the result; `output` is the folder for stdout and stderr.

        Raises NoResult, and the errors of the port `Executor`.
        """
        call = StoredCall(self._files, loan, command, on_line)
        await self.pass_lines(call.lines)
        return await call.take_over(await call.result(), output)


@dataclass
class Pod:
    """Pod with its control port. `log` is the pod log, `workspace` its folder on the host."""

    process: "subprocess.Popen[bytes]"
    log: Path
    workspace: Path
    token: str
    port: int = 0

    def control(self) -> PodControl:
        """Return a client of the control port."""
        return PodControl("127.0.0.1", self.port, self.token)

    async def gone(self) -> bool:
        """Return whether the pod has ended."""
        return self.process.poll() is not None

    def records(self) -> list[dict[str, object]]:
        """Return the lines of the pod log."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the runner from outside the pod, as the container runtime does."""
        if self.process.poll() is not None:  # its number may be that of another process or thread by now
            return
        for runner in children_of(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(runner, number)

    def kill(self) -> None:
        """Kill the pod, with all its processes."""
        # Its outer process may not signal another user, so the runner is killed, and the kernel kills the rest.
        self.signal(signal.SIGKILL)
        self.process.wait(60)

    def wait(self) -> int:
        """Wait for the end of the pod; return its exit code."""
        return self.process.wait(60)


@dataclass
class Pods:
    """Maker of pods. `folder` must be empty, `archive` holds the runner."""

    folder: Path
    archive: Path
    made: int = 0

    @asynccontextmanager
    async def pod(self, *, start_s: int = 60, program_uid: int = 0, tmp_bytes: int = 2**30) -> AsyncIterator[Pod]:
        """Start a pod and wait until it listens; at the end it is dead. With `program_uid`, its runner is root."""
        self.made += 1
        home = self.folder / f"pod-{self.made}"
        workspace = home / "workspace"
        workspace.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(workspace, UID, UID)
        token = secrets.token_hex(16)
        variables = {
            "RUNNER_PORT": "0",
            "RUNNER_START_S": str(start_s),
            "RUNNER_TOKEN_SHA256": hashlib.sha256(token.encode()).hexdigest(),
        }
        if program_uid:
            variables["RUNNER_UID"] = str(program_uid)
        log = home / "log"
        with log.open("wb") as file:
            command = self._command(workspace, variables, tmp_bytes)
            process = await asyncio.to_thread(subprocess.Popen, command, stdout=file, stderr=file)
        pod = Pod(process, log, workspace, token)
        try:
            await asyncio.to_thread(wait_until, lambda: b"\n" in log.read_bytes(), "the pod listens")
            pod.port = json.loads(log.read_bytes().splitlines()[0])["port"]
            yield pod
        finally:
            pod.kill()

    def _command(self, workspace: Path, variables: dict[str, str], tmp_bytes: int) -> list[str]:
        python = sandbox.python_home()
        parts = [str(sandbox.find_bwrap()), "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
        parts += ["--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
        parts += ["--perms", "1777", "--size", str(tmp_bytes), "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr"]
        parts += ["--perms", "1777", "--size", str(tmp_bytes), "--tmpfs", "/dev/shm"]
        for name in ("bin", "lib", "lib64"):
            parts += ["--symlink", f"usr/{name}", f"/{name}"]
        if not python.is_relative_to("/usr"):
            for parent in reversed(python.parents[:-1]):
                parts += ["--perms", "0755", "--dir", str(parent)]
            parts += ["--ro-bind", str(python), str(python)]
        parts += ["--ro-bind", str(self.archive), "/runner.pyz", "--bind", str(workspace), "/workspace"]
        parts += ["--remount-ro", "/", "--clearenv"]
        for name, value in variables.items():
            parts += ["--setenv", name, value]
        runner = [str(python / "bin" / "python3"), "-I", "-S", "/runner.pyz"]
        if os.geteuid() != 0:
            return [*parts, "--unshare-user", "--uid", "1000", "--gid", "1000", *runner]
        if "RUNNER_UID" in variables:
            return [*parts, *(part for name in CAPABILITIES for part in ("--cap-add", f"CAP_{name}")), *runner]
        drop = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
        return [*parts, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", *drop, *runner]


class LonePodSession:
    """Session in a pod without a cluster; implements the port `Session` as the executor for Kubernetes does."""

    def __init__(self, pods: Pods, max_reply_bytes: int) -> None:
        self._stack = AsyncExitStack()
        self._pods = pods
        self._max_reply_bytes = max_reply_bytes
        self.pod: Pod | None = None
        self.client: PodSessionClient | None = None

    async def begin(self, command: Command, proxy_url: str = "") -> None:
        """Start the pod and the program."""
        self.pod = pod = await self._stack.enter_async_context(self._pods.pod())
        self.client = PodSessionClient(pod.control(), self._max_reply_bytes, lambda: pod.process.poll() is not None)
        await self.client.open("session", command, proxy_url)

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """See the port."""
        if self.client is None:
            raise SessionLost("it was closed")
        try:
            async with asyncio.timeout(timeout_s):
                return await self.client.ask(request)
        except TimeoutError:
            await self.close()
            raise SessionLost(f"it did not answer within {timeout_s:g} s") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See the port."""
        if self.client and self.pod:
            self.client = None
            await self.pod.control().cancel(10)
            assert await asyncio.to_thread(self.pod.wait) == 0, self.log
            await self._stack.aclose()

    @property
    def log(self) -> str:
        """Log of the pod."""
        return self.pod.log.read_text() if self.pod else ""

    def kill(self) -> None:
        """Kill the pod."""
        if self.pod:
            self.pod.kill()


@dataclass
class PodExecutor:
    """Executor whose programs run in pods, for the tests of the capabilities; implements the port `Executor`.

    `files_of` returns the workspace of a run in the store. `execute` tells its argument `files` where the folder is,
    and that changes were stored.
    """

    pods: Pods
    files_of: Callable[[str], S3RunFiles]
    output: Path
    runs: dict[str, S3RunFiles] = field(default_factory=dict)
    sessions: dict[str, "LonePodSession"] = field(default_factory=dict)

    async def check(self) -> None:
        """Do nothing."""

    async def execute(self, command: Command, files: DirectoryFiles, on_line: OnLine) -> Execution:
        """Run the program in a pod of its own."""
        stored = self.runs.setdefault(command.run_id, self.files_of(command.run_id))
        async with self.pods.pod() as pod:
            await files.materialise(pod.workspace)
            calls = FollowedCalls(pod.control(), stored, pod.gone)
            ended = await calls.follow(await calls.start(await prepare(command, stored)), command, on_line, self.output)
        await files.store_changes(pod.workspace)
        return ended

    async def open(self, command: Command, max_reply_bytes: int, fence: int) -> Session:
        """Start the program in a pod of its own, and close the session that the run had."""
        await self.release(command.run_id)
        self.sessions[command.run_id] = session = LonePodSession(self.pods, max_reply_bytes)
        await session.begin(command)
        return session

    def end_unowned(self, run_id: str | None) -> None:
        """Do nothing: nobody cancels here."""

    async def release(self, run_id: str) -> None:
        """Forget the workspace, and close the session."""
        self.runs.pop(run_id, None)
        if session := self.sessions.pop(run_id, None):
            await session.close()

    def close(self) -> None:
        """Kill the pods of sessions, and remove the folders."""
        for session in self.sessions.values():
            session.kill()
        with suppress(FileNotFoundError):
            shutil.rmtree(self.pods.folder)
