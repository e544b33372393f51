"""The chaos suite's stack, with one more API and two Lambda functions before it, all of which may be harmed."""

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
from tests.chaos.site import Site, site
from tests.lambdas.conftest import POLLING, ROOT, STREAMING
from tests.lambdas.environment import Environment, environment
from tests.lambdas.function_url import FunctionUrl, function_url
from tests.support.redis import free_port
from tests.support.run_store import RunStore
from tests.support.waiting import wait_until

T = TypeVar("T")

SEGMENT = 60
"""So many events make a segment here: whoever comes late, or comes back, crosses from the archive into the stream."""
FUNCTION_S = 20.0
HOLD_S = 8.0
CORS = {"EDGE_CORS_ORIGINS": "*"}


@dataclass
class Stack:
    """Everything. `longpoll` is an API that answers a poll at a time, as behind Mangum."""

    place: Site
    longpoll: Process
    longpoll_url: str

    @property
    def url(self) -> str:
        """The API that streams."""
        return self.place.stack.config.api_url

    @property
    def token(self) -> str:
        """The user's token."""
        return self.place.stack.config.credentials.api_token

    def start_workers(self, *names: str) -> None:
        """Workers with small segments."""
        for name in names:
            self.place.worker(name, CHAOS_SEGMENT_EVENTS=str(SEGMENT))

    def create(self, *commands: str, start: bool = True) -> str:
        """A run with one `shell` step for each command."""
        with self.place.client() as client:
            plan = [shell(command) for command in commands]
            return client.create_run(plan=plan, max_attempts=20, start=start).run_id

    async def archived(self, run_id: str) -> int:
        """How many events of a run are in the archive."""
        return (await self._ask(lambda store: store.log(run_id))).archived

    async def fence(self, run_id: str) -> int:
        """Under which fence the run is, or was, held."""
        return (await self._ask(lambda store: store.get(run_id))).fence

    async def _ask(self, question: Callable[[RunStore], Awaitable[T]]) -> T:
        """Past the API, and past every proxy."""
        redis = self.place.redis()
        try:
            return await question(RunStore(redis))
        finally:
            await redis.close()

    def heal(self) -> None:
        """All parts answer again, and no worker is left."""
        self.place.heal()
        if not self.longpoll.is_alive():
            self.longpoll.start()
        wait_until(lambda: answers(self.longpoll_url, self.token), "the polling API answers", timeout_s=60)
        self.place.remove_workers()


def answers(url: str, token: str) -> bool:
    """Whether an API of this machine is ready."""
    return http_ok(int(url.rpartition(":")[2]), "/ready", token)


@contextmanager
def whole_stack(folder: Path) -> Iterator[Stack]:
    """Up, without workers."""
    with site(folder) as place:
        port = free_port()
        variables = {**_api(place), "EDGE_PORT": str(port), "EDGE_LOG_MODE": "longpoll", "EDGE_LONGPOLL_WAIT_S": "3"}
        log = folder / "longpoll.log"
        longpoll = Process("longpoll", (sys.executable, "-m", "edge_api"), variables, log)
        longpoll.start()
        try:
            stack = Stack(place, longpoll, f"http://127.0.0.1:{port}")
            stack.heal()
            yield stack
        finally:
            longpoll.end()


@asynccontextmanager
async def functions(stack: Stack, folder: Path) -> AsyncIterator[tuple[FunctionUrl, FunctionUrl]]:
    """The function whose answers stream, and the one under Lambda's own runtime, which answers polls."""
    numbers = count()
    variables = {
        **_api(stack.place),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "LAMBDA_TASK_ROOT": str(ROOT),
        "EDGE_STREAM_HOLD_S": str(HOLD_S),
    }

    def make(command: list[str], **changes: str) -> AbstractAsyncContextManager[Environment]:
        return environment(command, {**variables, **changes}, folder / f"function-{next(numbers)}.log", FUNCTION_S)

    async with (
        function_url(lambda: make(STREAMING)) as streaming,
        function_url(lambda: make(POLLING, EDGE_LOG_MODE="longpoll", EDGE_LONGPOLL_WAIT_S="3")) as polling,
    ):
        yield streaming, polling


def _api(place: Site) -> dict[str, str]:
    return {**parts.api(place.stack.config, parts.base_environment(os.environ)).environment, **CORS}
