"""Disruptions of the stack, injected while logs are being read."""

import signal
import time
from collections.abc import Callable, Mapping

from tests.chaos.processes import Process
from tests.chaos.scenario_helpers import is_type, read_log, wait_for_event, worker_of
from tests.chaos.site import ChaosSite
from tests.conformance.stack import Stack
from tests.support.waiting import wait_until

PAUSE_S = 0.7


def kill_redis(stack: Stack, run_id: str) -> None:
    """`kill -9` Valkey, which restarts with all acknowledged writes."""
    _kill_part(stack.site, "redis")


def kill_gateway(stack: Stack, run_id: str) -> None:
    """`kill -9` the gateway, which closes every subscription of the APIs."""
    _kill_part(stack.site, "gateway")


def kill_apis(stack: Stack, run_id: str) -> None:
    """`kill -9` both APIs, twice."""
    for _ in range(2):
        stack.longpoll.end()
        _kill_part(stack.site, "api")
        stack.longpoll.start()
        time.sleep(PAUSE_S)


def kill_subscriptions(stack: Stack, run_id: str) -> None:
    """Close every pub/sub connection at Redis, four times, without a fault elsewhere."""
    for _ in range(4):
        stack.site.redis_command("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(PAUSE_S)


def kill_worker(stack: Stack, run_id: str) -> None:
    """`kill -9` the owner of the run; the other worker resumes it with a new fence."""
    _owner(stack.site, run_id).end(signal.SIGKILL)


def freeze_worker(stack: Stack, run_id: str) -> None:
    """Freeze the owner past its lease, then continue it: two workers write to the run, one with a stale fence."""
    owner = _owner(stack.site, run_id)
    owner.send(signal.SIGSTOP)
    try:
        wait_for_event(stack.site, run_id, is_type("run.resumed"), "the other worker resumes the run")
    finally:
        owner.send(signal.SIGCONT)


DISRUPTIONS: Mapping[str, Callable[[Stack, str], None]] = {
    disrupt.__name__: disrupt
    for disrupt in (kill_redis, kill_gateway, kill_apis, kill_subscriptions, kill_worker, freeze_worker)
}


def _owner(site: ChaosSite, run_id: str) -> Process:
    started = next(filter(is_type("run.started"), read_log(site, run_id)))
    return site.workers[worker_of(started)]


def _kill_part(site: ChaosSite, part: str) -> None:
    """Kill the part and wait until the stack has restarted it."""
    before = site.stack.pids.get(part)
    site.kill_part(part)
    wait_until(lambda: site.stack.pids.get(part) not in {None, before}, f"{part} is restarted", timeout_s=60)
