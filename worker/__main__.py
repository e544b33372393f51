"""Composition root of the worker, run as `swissbrain-worker` or `python -m worker`.

Builds the adapters from environment variables and works until SIGTERM.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import uvloop

from infra import logging as log_lines
from infra.contract.errors import ContractError, ExecutorUnavailable, FilesUnavailable, HostExhausted
from infra.contract.redis_store.work_queue import WorkQueue
from infra.local_executor import LocalExecutor
from infra.process_state import exempt_startup_objects, reset_inherited_state
from infra.redis_tcp import RedisTcp
from infra.scratch_root import ScratchRoot
from infra.settings import Env, RedisTcpSettings, S3Settings, SettingsError, StoreSettings
from infra.workspace import Workspaces
from worker.health import Heartbeat, serve_health
from worker.lease import LeaseKeeper
from worker.plan import PlanWalker
from worker.queue.loop import MAX_BLOCK_S, WorkerLoop
from worker.registry import REGISTRY
from worker.runner import Runner
from worker.settings import WorkerSettings

PROGRAM = "swissbrain-worker"


async def work(variables: Mapping[str, str], *, unsafe: bool) -> None:
    """Build all parts and work until drained. Raises SettingsError."""
    env = Env(variables)
    settings, store_settings = WorkerSettings.from_env(env), StoreSettings.from_env(env)
    redis = RedisTcp(RedisTcpSettings.from_env(env))
    workspaces = Workspaces(S3Settings.from_env(env))
    scratch = ScratchRoot(settings.root / settings.name)
    executor = LocalExecutor(scratch, unsafe=unsafe)
    # A missing sandbox or object store is logged and does not end the worker: the object store may come back, and runs
    # without programs need no sandbox.
    try:
        await executor.check()
    except (ExecutorUnavailable, HostExhausted) as exc:
        log_lines.log("executor.unavailable", level=logging.WARNING, reason=str(exc))
    try:
        await workspaces.check()
    except (FilesUnavailable, HostExhausted) as exc:
        log_lines.log("files.unavailable", level=logging.WARNING, reason=str(exc))
    store = WorkQueue(redis, store_settings.keys, retention_s=store_settings.retention_s)
    keeper = LeaseKeeper(store, settings.lease_s)
    runner = Runner(store, workspaces, executor, PlanWalker(REGISTRY))
    loop = WorkerLoop(settings, store, redis, keeper, runner, scratch)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, loop.drain)
    try:
        with _health(keeper.heartbeat, settings):
            log_lines.log("worker.started", worker=settings.name, slots=settings.slots)
            exempt_startup_objects()
            await loop.run()
    finally:
        await redis.close()
        workspaces.close()
    # Skipped after an error: programs may still be running then, and the next worker removes the folder.
    executor.close()
    log_lines.log("worker.stopped", worker=settings.name)


def _health(heartbeat: Heartbeat, settings: WorkerSettings) -> AbstractContextManager[object]:
    """Return the context of the liveness endpoint; it does nothing if no port is set."""
    if settings.health_port is None:
        return nullcontext()
    # Redis replies to an idle worker at least every MAX_BLOCK_S, to a busy one every third of the lease.
    max_age_s = max(MAX_BLOCK_S, settings.lease_s / 3) + 60
    return serve_health(heartbeat, settings.health_host, settings.health_port, max_age_s)


def main() -> int:
    """Parse the command line and work until SIGTERM. Returns the exit code: 2 for bad settings, 1 for other errors."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Works on runs until SIGTERM.")
    parser.add_argument(
        "--unsafe-no-sandbox",
        action="store_true",
        help="for development only: run tools without isolation",
    )
    reset_inherited_state()
    options = parser.parse_args()
    log_lines.configure()
    try:
        uvloop.run(work(os.environ, unsafe=options.unsafe_no_sandbox))
    except SettingsError as exc:
        print(f"{PROGRAM}: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    except ContractError as exc:
        print(f"{PROGRAM}: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
