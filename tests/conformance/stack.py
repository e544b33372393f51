"""Site of the chaos suite with a long-poll API and two Lambda functions in addition."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

from infra.devstack import processes as parts
from infra.devstack.probes import http_ok
from tests.chaos.plans import shell
from tests.chaos.processes import Process
from tests.chaos.site import ChaosSite, running_site
from tests.lambdas.conftest import POLLING, ROOT, STREAMING
from tests.lambdas.environment import Environment, environment
from tests.lambdas.function_url import FunctionUrl, function_url
from tests.support.redis import free_port
from tests.support.run_store import RunStore
from tests.support.waiting import wait_until

T = TypeVar("T")

SEGMENT = 25
"""Events of an archive segment, small so that readers who start late or reconnect read from archive and stream."""
FUNCTION_S = 20.0
HOLD_S = 8.0
CORS = {"EDGE_CORS_ORIGINS": "*"}
LONGPOLL = {"EDGE_LOG_MODE": "longpoll", "EDGE_LONGPOLL_WAIT_S": "3"}


@dataclass
class Stack:
    """Running stack. `longpoll` is an API in long-poll mode, which is used behind Mangum."""

    site: ChaosSite
    longpoll: Process
    longpoll_url: str

    @property
    def url(self) -> str:
        """Address of the streaming API."""
        return self.site.config.api_url

    @property
    def token(self) -> str:
        """API token of the user."""
        return self.site.config.credentials.api_token

    def start_workers(self, *names: str) -> None:
        """Start workers with small archive segments."""
        for name in names:
            self.site.worker(name, CHAOS_SEGMENT_EVENTS=str(SEGMENT))

    def create(self, *commands: str, start: bool = True) -> str:
        """Create a run with one `shell` step for each command; return its id."""
        with self.site.client() as client:
            plan = [shell(command) for command in commands]
            return client.create_run(plan=plan, max_attempts=20, start=start).run_id

    async def archived(self, run_id: str) -> int:
        """Return the number of archived events of a run."""
        return (await self._query(lambda store: store.log(run_id))).archived

    async def fence(self, run_id: str) -> int:
        """Return the fence of the run's last claim."""
        return (await self._query(lambda store: store.get(run_id))).fence

    async def _query(self, query: Callable[[RunStore], Awaitable[T]]) -> T:
        """Query the store without the API and the proxies."""
        redis = self.site.redis()
        try:
            return await query(RunStore(redis))
        finally:
            await redis.close()

    def heal(self) -> None:
        """End all faults, wait until all parts are ready, and kill all workers."""
        self.site.heal()
        if not self.longpoll.is_alive():
            self.longpoll.start()
        wait_until(lambda: is_ready(self.longpoll_url, self.token), "the long-poll API is ready", timeout_s=60)
        self.site.remove_workers()


def is_ready(url: str, token: str) -> bool:
    """Return whether an API on this machine is ready."""
    return http_ok(int(url.rpartition(":")[2]), "/ready", token)


@contextmanager
def whole_stack(folder: Path) -> Iterator[Stack]:
    """Start a stack without workers."""
    with running_site(folder) as site:
        port = free_port()
        variables = {**_api_variables(site), "EDGE_PORT": str(port), **LONGPOLL}
        log = folder / "longpoll.log"
        longpoll = Process("longpoll", (sys.executable, "-m", "edge_api"), variables, log)
        longpoll.start()
        try:
            stack = Stack(site, longpoll, f"http://127.0.0.1:{port}")
            stack.heal()
            yield stack
        finally:
            longpoll.end()


@asynccontextmanager
async def functions(stack: Stack, folder: Path) -> AsyncIterator[tuple[FunctionUrl, FunctionUrl]]:
    """Start the streaming function, and the function on Lambda's Python runtime, which serves long polls."""
    numbers = count()
    variables = {
        **_api_variables(stack.site),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "LAMBDA_TASK_ROOT": str(ROOT),
        "EDGE_STREAM_HOLD_S": str(HOLD_S),
    }

    def make(command: list[str], **changes: str) -> AbstractAsyncContextManager[Environment]:
        return environment(command, {**variables, **changes}, folder / f"function-{next(numbers)}.log", FUNCTION_S)

    async with (
        function_url(lambda: make(STREAMING)) as streaming,
        function_url(lambda: make(POLLING, **LONGPOLL)) as polling,
    ):
        yield streaming, polling


def _api_variables(site: ChaosSite) -> dict[str, str]:
    return {**parts.api(site.config, parts.base_environment(os.environ)).environment, **CORS}
