"""Injection of faults, chosen and timed by a seeded generator."""

import heapq
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random

from infra.contract.errors import ContractError
from tests.chaos.model import ModelFault
from tests.chaos.processes import Process, now_ms
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.site import ChaosSite
from tests.chaos.worker import LEASE_S

TICK_S = 0.02
PAUSE_S = (0.3, 2.0)
PROXY_S = (0.3, 3.0)
FROZEN_S = (1.1 * LEASE_S, 2.5 * LEASE_S)
DELAY_S = (0.02, 0.4)
FROZEN_PART_S = (0.5, 4.0)
REFUSING_S = (0.3, 3.0)
NO_MASTER = ("127.0.0.1", "1")
"""Address without a server: a replica of it refuses writes, as a Redis does during a failover."""
S3_KILLED = "s3: kill -9"
"""Fault that short rounds leave out, because the S3 server takes 20 s to restart."""
MODEL_BUSY = f"model: {ModelFault.BUSY_LONG}"
"""Fault that short rounds leave out, because runs are given back for half a minute."""
MODEL = "model: "


class Faults:
    """Injects faults at random intervals. `tick` must be called by the thread that starts processes.

    `selected` picks faults by name. `killed` lists the time in ms and the worker of each kill; `violations` lists
    processes that ended although no fault had ended them.
    """

    def __init__(self, site: ChaosSite, seed: str, selected: Callable[[str], bool] = lambda _: True) -> None:
        self.count: Counter[str] = Counter()
        self.killed: list[tuple[int, str]] = []
        self.violations: list[str] = []
        self._site = site
        self._random = Random(f"{seed}/faults")
        self._scheduled: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()  # breaks ties in the heap, because functions cannot be compared
        self._next = time.monotonic()
        kinds: dict[str, tuple[float, Callable[[], None]]] = {
            "worker: kill -9": (5, self._kill_worker),
            "worker: frozen past its lease": (3, self._freeze_worker),
            "worker: drained": (3, self._drain_worker),
            "api: kill -9": (0.7, lambda: site.kill_part("api")),
            "second api: kill -9": (0.7, lambda: site.second_api.send(signal.SIGKILL)),
            "gateway: kill -9": (1, lambda: site.kill_part("gateway")),
            "redis: kill -9": (1.5, lambda: site.kill_part("redis")),
            "redis: read-only": (1, self._refuse_writes),
            S3_KILLED: (0.2, lambda: site.kill_part("s3")),
        }
        for part in ("redis", "gateway", "api", "s3"):
            kinds[f"{part}: frozen"] = (0.5, lambda p=part: self._freeze_part(p))  # type: ignore[misc]
        connections = {
            "worker to redis": site.redis_proxy,
            "worker to s3": site.s3_proxy,
            "api to gateway": site.gateway_proxy,
        }
        if site.cluster:
            connections["worker to kubernetes"] = site.cluster.proxy
        for name, proxy in connections.items():
            for mode in (Mode.DISCONNECT, Mode.RESET, Mode.STALL, Mode.DELAY, Mode.DROP_REPLIES, Mode.DUPLICATE):
                kinds[f"{name}: {mode}"] = (0.9, lambda p=proxy, m=mode: self._disturb(p, m))  # type: ignore[misc]
        for fault in ModelFault:
            kinds[f"{MODEL}{fault}"] = (0.6, lambda f=fault: self._disturb_model(f))  # type: ignore[misc]
        for mode in (Mode.DISCONNECT, Mode.RESET, Mode.STALL):
            kinds[f"{MODEL}{mode}"] = (0.6, lambda m=mode: self._disturb(site.model_proxy, m))  # type: ignore[misc]
        if site.cluster:
            kinds |= {name: (1.0, fault) for name, fault in site.cluster.faults(self._random, self._after).items()}
        self._kinds = {name: kind for name, kind in kinds.items() if selected(name)}

    def tick(self, *, inject: bool) -> None:
        """End the faults that are due to end, restart ended processes, and inject the next fault if it is due."""
        now = time.monotonic()
        while self._scheduled and self._scheduled[0][0] <= now:
            heapq.heappop(self._scheduled)[2]()
        self._restart_ended()
        if inject and now >= self._next:
            names = [*self._kinds]
            name = self._random.choices(names, [self._kinds[name][0] for name in names])[0]
            self.count[name] += 1
            self._kinds[name][1]()
            self._next = now + self._random.uniform(*PAUSE_S)

    def end(self) -> None:
        """End all lasting faults now."""
        while self._scheduled:
            heapq.heappop(self._scheduled)[2]()

    def _after(self, pause_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._scheduled, (time.monotonic() + pause_s, next(self._order), action))

    def _worker(self) -> Process:
        return self._site.workers[self._random.choice(sorted(self._site.workers))]

    def _kill_worker(self) -> None:
        worker = self._worker()
        self.killed.append((now_ms(), worker.name))
        worker.send(signal.SIGKILL)

    def _freeze_worker(self) -> None:
        worker = self._worker()
        pid = worker.pid
        worker.send(signal.SIGSTOP)

        def thaw() -> None:
            if worker.pid == pid:  # a restarted worker was never frozen
                worker.send(signal.SIGCONT)

        self._after(self._random.uniform(*FROZEN_S), thaw)

    def _drain_worker(self) -> None:
        self._worker().send(signal.SIGTERM)

    def _freeze_part(self, name: str) -> None:
        pid = self._site.signal_part(name, signal.SIGSTOP)

        def thaw() -> None:
            if self._site.stack.pids.get(name) == pid:
                self._site.signal_part(name, signal.SIGCONT)

        self._after(self._random.uniform(*FROZEN_PART_S), thaw)

    def _refuse_writes(self) -> None:
        with suppress(ContractError):
            self._site.redis_command("REPLICAOF", *NO_MASTER, timeout_s=0.5)
        self._after(self._random.uniform(*REFUSING_S), self._allow_writes)

    def _allow_writes(self) -> None:
        try:
            self._site.redis_command("REPLICAOF", "NO", "ONE", timeout_s=0.5)
        except ContractError:  # Redis is killed or frozen now; `end` would retry without a pause
            time.sleep(TICK_S)
            self._after(10 * TICK_S, self._allow_writes)

    def _disturb(self, proxy: Proxy, mode: Mode) -> None:
        proxy.behave(mode, delay_s=self._random.uniform(*DELAY_S))
        self._after(self._random.uniform(*PROXY_S), lambda: proxy.behave(Mode.PASS))

    def _disturb_model(self, fault: ModelFault) -> None:
        model = self._site.model
        model.fault = fault

        def end() -> None:
            if model.fault is fault:  # another one may have begun meanwhile
                model.fault = None

        self._after(self._random.uniform(*PROXY_S), end)

    def _restart_ended(self) -> None:
        for process in (*self._site.workers.values(), self._site.second_api):
            if process.is_alive():
                continue
            code = process.exit_code()
            if not process.expected or code not in {0, -signal.SIGKILL, -signal.SIGTERM}:
                self.violations.append(f"{process.name} ended with {code}: {process.log()[-1000:]}")
            process.start()
