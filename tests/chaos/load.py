"""Runs sent to the API by clients that never give up."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from swissbrain.client import Client
from swissbrain.errors import ApiError, Unreachable
from swissbrain.models import Event, Gap, Run, RunState
from swissbrain.transport import Transport
from tests.chaos.plans import Kind, chooser
from tests.chaos.processes import now_ms
from tests.chaos.site import Site

T = TypeVar("T")

MAX_ATTEMPTS = 20
SENDERS = 3
FOLLOWERS = 10
SUCCESSORS = 20
FOLLOWED = 0.3
GIVE_UP_S = 300.0
PAUSE_S = 0.3


@dataclass
class Sent:
    """An acknowledged run. `cancel` is the status that the API answered to the cancel, or `refused`.

    `first` is the first step that it executes itself, if it is a fork. `live` is what came of its log while it was
    followed, through the second API if `far`.
    """

    run_id: str
    kind: Kind
    created_ms: int
    delay_s: float = 0.0
    first: int = 0
    followed: "Future[None] | None" = None
    live: list[Event | Gap] = field(default_factory=list)
    far: bool = False
    cancel: str | None = None
    cancelled_ms: int = 0


class Load:
    """Sends runs, and cancels, retries, forks and follows some. `faults` takes what must not have happened."""

    def __init__(self, site: Site, seed: str, per_second: float) -> None:
        self.sent: list[Sent] = []
        self.faults: list[str] = []
        self._site = site
        self._seed = seed
        self._pause_s = SENDERS / per_second
        self._stop = threading.Event()
        self._senders = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]
        self._followers = ThreadPoolExecutor(FOLLOWERS, "follower")
        self._cancellers = ThreadPoolExecutor(FOLLOWERS, "canceller")
        self._successors = ThreadPoolExecutor(SUCCESSORS, "successor")
        self._following = threading.Semaphore(FOLLOWERS)
        self._begun: list[Future[None]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to send."""
        for sender in self._senders:
            sender.start()

    def stop(self) -> None:
        """Send no more; return when all that was begun is acknowledged: workers must be there meanwhile."""
        self._stop.set()
        for sender in self._senders:
            sender.join()
        for begun in self._begun:
            if error := begun.exception():
                self.faults.append(f"a cancel, retry or fork failed: {error!r}")
        self._cancellers.shutdown()
        self._successors.shutdown()
        self._followers.shutdown(wait=False)

    def _send(self, number: int) -> None:
        random = Random(f"{self._seed}/sender {number}")
        choose = chooser(random)
        count = 0
        while not self._stop.wait(random.uniform(0, 2 * self._pause_s)):
            count += 1
            try:
                self._create(choose(), f"{self._seed}/{number}/{count}", random)
            except Exception as exc:
                self.faults.append(f"a run could not be created: {exc!r}")

    def _create(self, kind: Kind, key: str, random: Random) -> None:
        delay_s = round(random.uniform(1, kind.delay_s), 3) if kind.delay_s else 0.0
        wanted = {"plan": kind.plan, "max_attempts": MAX_ATTEMPTS, "delay_s": delay_s, "metadata": {"kind": kind.name}}
        far = random.random() < 0.5
        cancel_s, follow = random.uniform(0, kind.cancel_s), random.random() < FOLLOWED and not kind.retries
        from_step = random.randrange(1, len(kind.plan)) if kind.fork else 0

        def create() -> Run:
            nonlocal far
            far = not far
            with self._api(far=far) as api:
                return api.ask(Run, "POST", "/agent/runs", json=wanted, key=key)

        run = persistent(create)
        sent = Sent(run.run_id, kind, run.created_ms, delay_s, far=far)
        with self._lock:
            self.sent.append(sent)
        if kind.cancel_s:
            self._begun.append(self._cancellers.submit(self._cancel, sent, cancel_s))
        if kind.retries:
            self._begun.append(self._successors.submit(self._retry, sent, f"{key}/retry"))
        if kind.fork:
            self._begun.append(self._successors.submit(self._fork, sent, from_step, f"{key}/fork"))
        if follow and self._following.acquire(blocking=False):
            sent.followed = self._followers.submit(self._follow, sent)

    @contextmanager
    def _api(self, *, far: bool) -> Iterator[Transport]:
        site = self._site.stack.config
        api = Transport(self._site.far_api_url if far else site.api_url, site.credentials.api_token, 20.0)
        try:
            yield api
        finally:
            api.close()

    def _cancel(self, sent: Sent, after_s: float) -> None:
        time.sleep(after_s)
        with self._site.client(far=sent.far) as client:
            sent.cancelled_ms = now_ms()
            sent.cancel = persistent(lambda: _cancel_once(client, sent.run_id))

    def _retry(self, sent: Sent, key: str) -> None:
        """Once it has failed; as often as the API must be asked, this is one retry."""
        path = f"/agent/runs/{sent.run_id}"
        with self._api(far=sent.far) as api:
            eventually(lambda: persistent(lambda: api.ask(Run, "GET", path)).status == "failed")
            persistent(lambda: api.ask(RunState, "POST", f"{path}/retry", key=key))

    def _fork(self, sent: Sent, from_step: int, key: str) -> None:
        """As soon as it has completed those steps."""
        with self._site.client(far=sent.far) as client:

            def forked() -> Run | None:
                try:
                    return client.fork(sent.run_id, from_step, idempotency_key=key)
                except ApiError as exc:
                    if exc.field != "$.from_step":
                        raise
                    return None

            run = eventually(lambda: persistent(forked))
        kind = replace(sent.kind, name="fork")
        with self._lock:
            self.sent.append(Sent(run.run_id, kind, run.created_ms, first=from_step))

    def _follow(self, sent: Sent) -> None:
        try:
            with self._site.client(far=sent.far) as client:
                sent.live.extend(client.events(sent.run_id))
        finally:
            self._following.release()


def persistent(call: Callable[[], T]) -> T:
    """What the call answers, however often the API must be asked."""
    deadline = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return call()
        except Unreachable:
            if time.monotonic() > deadline:
                raise


def eventually(call: Callable[[], T | None]) -> T:
    """What the call answers when that is true."""
    deadline = time.monotonic() + GIVE_UP_S
    while not (answer := call()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(PAUSE_S)
    return answer


def _cancel_once(client: Client, run_id: str) -> str:
    try:
        return client.cancel(run_id).status
    except ApiError as exc:
        if exc.status != 409:
            raise
        return "refused"
