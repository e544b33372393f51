"""Real API over a real Valkey and the real gateway, with a simulated worker."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_api.schedules_service import Scheduling
from edge_api.settings import ApiSettings
from infra.contract.files import FileEntry
from infra.contract.redis import Redis
from infra.contract.redis_store.schedule_store import ScheduleStore
from infra.qstash import QStash
from infra.redis_tcp import RedisTcp
from swissbrain.models import PlanStep
from tests.edge.stack import STREAM_KEY, Files, SimulatedWorker, serve
from tests.support.qstash import qstash_settings, stand_in, stand_in_settings
from tests.support.redis import gateway, valkey_server

T = TypeVar("T")
PLAN = [PlanStep(tool="message", args={"text": "hello"})]


@dataclass
class LinkedFiles(Files):
    """Workspace files that are all stored at one address."""

    url: str = ""

    def link_type(self, path: str, *, inline: bool) -> str:
        return "application/octet-stream"

    async def presign_get(
        self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int, *, inline: bool = False
    ) -> str:
        return f"{self.url}/{entry.key}"


class Real:
    """API and simulated worker in the event loop of another thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.files = LinkedFiles()
        self.url = ""
        self.worker: SimulatedWorker

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def real_api(folder: Path) -> Iterator[Real]:
    """Run an API whose streams end every 0.3 s."""
    made, stack = Real(), AsyncExitStack()
    settings = ApiSettings(stream_ping_s=0.05, stream_hold_s=0.3, stream_token_keys=(STREAM_KEY,))
    with valkey_server(folder) as tcp, gateway(tcp) as rest:
        redis = RedisTcp(tcp)
        made.worker = SimulatedWorker(redis)
        try:
            qstash_url = made.do(stack.enter_async_context(stand_in(stand_in_settings(tcp))))

            def scheduling(redis: Redis, public_url: str) -> Scheduling:
                qstash = QStash(qstash_settings(qstash_url, public_url))
                stack.push_async_callback(qstash.close)
                return Scheduling(ScheduleStore(redis), qstash)

            api = serve(rest, made.files, settings, scheduling=scheduling)
            made.url = made.do(stack.enter_async_context(api)).url
            yield made
        finally:
            made.do(stack.aclose())
            made.do(redis.close())
            made.end()
