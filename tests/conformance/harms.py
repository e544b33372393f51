"""What is done to the stack while its logs are being read."""

import signal
import time
from collections.abc import Callable, Mapping

from swissbrain.models import Event
from tests.chaos.site import Site
from tests.conformance.stack import Stack
from tests.support.waiting import wait_until

APART_S = 0.7


def nothing(stack: Stack, run_id: str) -> None:
    """Leave it alone."""


def kill_redis(stack: Stack, run_id: str) -> None:
    """`kill -9` Valkey; it comes back with what it had acknowledged."""
    _restarted(stack.place, "redis")


def kill_gateway(stack: Stack, run_id: str) -> None:
    """`kill -9` the gateway, and with it every subscription of the APIs."""
    _restarted(stack.place, "gateway")


def kill_apis(stack: Stack, run_id: str) -> None:
    """`kill -9` the APIs, twice."""
    for _ in range(2):
        stack.longpoll.end()
        _restarted(stack.place, "api")
        stack.longpoll.start()
        time.sleep(APART_S)


def kill_subscriptions(stack: Stack, run_id: str) -> None:
    """Cut every subscription at Redis, several times; nobody is told."""
    for _ in range(4):
        stack.place.ask_redis("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(APART_S)


def kill_worker(stack: Stack, run_id: str) -> None:
    """`kill -9` the worker that has the run; another one takes over, under a new fence."""
    with stack.place.client() as client:
        events = [event for event in client.logged(run_id) if isinstance(event, Event)]
    holder = next(str(event.data["worker"]) for event in events if event.type == "run.started")
    stack.place.workers[holder].end(signal.SIGKILL)


def freeze_worker(stack: Stack, run_id: str) -> None:
    """Stop the worker past its lease and let it go on beside the new owner: two writers, one with an old fence."""
    with stack.place.client() as client:
        events = [event for event in client.logged(run_id) if isinstance(event, Event)]
        holder = stack.place.workers[next(str(event.data["worker"]) for event in events if event.type == "run.started")]
        holder.send(signal.SIGSTOP)
        try:
            wait_until(
                lambda: any(getattr(event, "type", "") == "run.resumed" for event in client.logged(run_id)),
                "somebody else goes on",
                timeout_s=60,
            )
        finally:
            holder.send(signal.SIGCONT)


HARMS: Mapping[str, Callable[[Stack, str], None]] = {
    harm.__name__: harm
    for harm in (nothing, kill_redis, kill_gateway, kill_apis, kill_subscriptions, kill_worker, freeze_worker)
}


def _restarted(site: Site, part: str) -> None:
    before = site.stack.pids.get(part)
    site.kill_part(part)
    wait_until(lambda: site.stack.pids.get(part) not in {None, before}, f"{part} is started again", timeout_s=60)
