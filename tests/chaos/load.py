"""Load: clients that create runs and repeat each request until the API replies."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from swissbrain import Client
from swissbrain._sync.transport import Transport
from swissbrain.errors import ApiError, Unreachable
from swissbrain.models import Event, Gap, Run, RunState
from swissbrain.request import Request
from tests.chaos.plans import Kind, chooser
from tests.chaos.processes import now_ms
from tests.chaos.prompts import ANSWER
from tests.chaos.site import ChaosSite

T = TypeVar("T")

MAX_ATTEMPTS = 20
SENDERS = 3
FOLLOWERS = 10
SUCCESSORS = 20
FOLLOWED_SHARE = 0.3
TIMEOUT_S = 300.0
PAUSE_S = 0.3


@dataclass
class SentRun:
    """Acknowledged run, and the later requests for it.

    `cancel` is the status in the API's reply to the cancel, or `refused`. `first_step` is the first step that the run
    executes itself: above 0 for a fork. `live` holds the followed log; `second` says that the second API served it.
    """

    run_id: str
    kind: Kind
    created_ms: int
    delay_s: float = 0.0
    first_step: int = 0
    followed: "Future[None] | None" = None
    live: list[Event | Gap] = field(default_factory=list)
    second: bool = False
    cancel: str | None = None
    cancelled_ms: int = 0


class Load:
    """Creates runs; cancels, retries, forks, follows and answers some. `errors` lists requests that failed for good."""

    def __init__(self, site: ChaosSite, seed: str, per_second: float, kinds: Sequence[Kind]) -> None:
        self._kinds = kinds
        self.sent: list[SentRun] = []
        self.errors: list[str] = []
        self._site = site
        self._seed = seed
        self._pause_s = SENDERS / per_second
        self._stop = threading.Event()
        self._senders = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]
        self._followers = ThreadPoolExecutor(FOLLOWERS, "follower")
        self._cancellers = ThreadPoolExecutor(FOLLOWERS, "canceller")
        self._successors = ThreadPoolExecutor(SUCCESSORS, "successor")
        self._following = threading.Semaphore(FOLLOWERS)
        self._requests: list[Future[None]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the senders."""
        for sender in self._senders:
            sender.start()

    def stop(self) -> None:
        """Stop the senders; return once all requests are acknowledged. Workers must run until then, for the retries."""
        self._stop.set()
        for sender in self._senders:
            sender.join()
        for request in self._requests:
            if error := request.exception():
                self.errors.append(f"a cancel, retry, fork or answer failed: {error!r}")
        self._cancellers.shutdown()
        self._successors.shutdown()
        self._followers.shutdown(wait=False)

    def _send(self, number: int) -> None:
        random = Random(f"{self._seed}/sender {number}")
        choose = chooser(random, self._kinds)
        count = 0
        while not self._stop.wait(random.uniform(0, 2 * self._pause_s)):
            count += 1
            try:
                self._create(choose(), f"{self._seed}/{number}/{count}", random)
            except Exception as exc:
                self.errors.append(f"a run could not be created: {exc!r}")

    def _create(self, kind: Kind, key: str, random: Random) -> None:
        delay_s = round(random.uniform(1, kind.delay_s), 3) if kind.delay_s else 0.0
        work = {"prompt": kind.prompt, **kind.options} if kind.prompt else {"plan": kind.plan}
        body = {**work, "max_attempts": MAX_ATTEMPTS, "delay_s": delay_s, "metadata": {"kind": kind.name}}
        second = random.random() < 0.5
        cancel_s, follow = random.uniform(0, kind.cancel_s), random.random() < FOLLOWED_SHARE and not kind.retries
        from_step = random.randrange(1, len(kind.plan)) if kind.fork else 0

        def create() -> Run:
            nonlocal second
            second = not second  # a repeat goes to the other API: the idempotency key must hold across both
            with self._api(second=second) as api:
                return api.ask(Request(Run, "POST", "/agent/runs", json=body, key=key))

        run = persistent(create)
        sent = SentRun(run.run_id, kind, run.created_ms, delay_s, second=second)
        with self._lock:
            self.sent.append(sent)
        if kind.cancel_s:
            self._requests.append(self._cancellers.submit(self._cancel, sent, cancel_s))
        if kind.retries:
            self._requests.append(self._successors.submit(self._retry, sent, f"{key}/retry"))
        if kind.asks:
            self._requests.append(self._successors.submit(self._answer, sent))
        if kind.fork:
            self._requests.append(self._successors.submit(self._fork, sent, from_step, f"{key}/fork"))
        if follow and self._following.acquire(blocking=False):
            sent.followed = self._followers.submit(self._follow, sent)

    @contextmanager
    def _api(self, *, second: bool) -> Iterator[Transport]:
        config = self._site.config
        api = Transport(self._site.second_api_url if second else config.api_url, config.credentials.api_token, 20.0)
        try:
            yield api
        finally:
            api.close()

    def _cancel(self, sent: SentRun, after_s: float) -> None:
        time.sleep(after_s)
        with self._site.client(second=sent.second) as client:
            sent.cancelled_ms = now_ms()
            sent.cancel = persistent(lambda: _cancel_once(client, sent.run_id))

    def _retry(self, sent: SentRun, key: str) -> None:
        """Retry the run once it has failed. All repeats of the request carry one key, so they are one retry."""
        path = f"/agent/runs/{sent.run_id}"
        with self._api(second=sent.second) as api:
            eventually(lambda: persistent(lambda: api.ask(Request(Run, "GET", path))).status == "failed")
            persistent(lambda: api.ask(Request(RunState, "POST", f"{path}/retry", key=key)))

    def _answer(self, sent: SentRun) -> None:
        """Answer the requests of the run, and approve what it asks for, until it has ended."""
        path = f"/agent/runs/{sent.run_id}"
        with self._api(second=sent.second) as api:

            def ended() -> bool:
                run = persistent(lambda: api.ask(Request(Run, "GET", path)))
                requests = run.waiting.requests if run.waiting else ()
                if run.status == "waiting" and requests:
                    answers = {r.id: {"input": ANSWER} if r.kind == "question" else {"approve": True} for r in requests}
                    request = Request(RunState, "POST", f"{path}/resume", json={"answers": answers}, key=requests[0].id)
                    persistent(lambda: api.ask(request))
                return run.ended

            eventually(ended)

    def _fork(self, sent: SentRun, from_step: int, key: str) -> None:
        """Fork the run as soon as it has completed the steps before `from_step`."""
        with self._site.client(second=sent.second) as client:

            def forked() -> Run | None:
                try:
                    return client.fork(sent.run_id, from_step, idempotency_key=key)
                except ApiError as exc:
                    if exc.field != "$.from_step":  # the API rejects steps that are not completed yet
                        raise
                    return None

            run = eventually(lambda: persistent(forked))
        kind = replace(sent.kind, name="fork")
        with self._lock:
            self.sent.append(SentRun(run.run_id, kind, run.created_ms, first_step=from_step))

    def _follow(self, sent: SentRun) -> None:
        try:
            with self._site.client(second=sent.second) as client:
                sent.live.extend(client.events(sent.run_id))
        finally:
            self._following.release()


def persistent(call: Callable[[], T]) -> T:
    """Repeat the call until the API can be reached; return its result. Raises Unreachable after TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return call()
        except Unreachable:
            if time.monotonic() > deadline:
                raise


def eventually(call: Callable[[], T | None]) -> T:
    """Repeat the call until its result is true; return it. Raises TimeoutError after TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (result := call()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(PAUSE_S)
    return result


def _cancel_once(client: Client, run_id: str) -> str:
    try:
        return client.cancel(run_id).status
    except ApiError as exc:
        if exc.status != 409:
            raise
        return "refused"
