"""Composition root of the worker, run as `swissbrain-worker` or `python -m worker`.

Builds the adapters from environment variables and works until SIGTERM.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import uvloop

from infra import logging as log_lines
from infra import metrics
from infra.contract.errors import ContractError, StoreRejected
from infra.contract.execution import Command, Executor
from infra.contract.redis_store.webhook_store import WebhookStore
from infra.contract.redis_store.work_queue import WorkQueue
from infra.egress.settings import NetworkSettings
from infra.event_publisher import EventPublisher
from infra.http_limits import raise_descriptor_limit
from infra.llm_http.settings import LlmSettings
from infra.local_executor import LocalExecutor
from infra.process_state import exempt_startup_objects, reset_inherited_state
from infra.qstash import QStashPublisher
from infra.redis_tcp import RedisTcp
from infra.scratch_root import ScratchRoot
from infra.settings import Env, QStashAccess, RedisTcpSettings, S3Settings, SettingsError, StoreSettings
from infra.workspace import Workspaces
from worker.agent.settings import AgentSettings
from worker.browser.settings import BrowserSettings
from worker.fetch.settings import FetchSettings
from worker.fitness import Fitness
from worker.health import Heartbeat, serve_health
from worker.lease import LeaseKeeper
from worker.plan import PlanWalker
from worker.plan_or_prompt import PlanOrPrompt
from worker.queue.loop import MAX_BLOCK_S, WorkerLoop
from worker.registry import registry
from worker.runner import Runner
from worker.settings import WorkerSettings
from worker.toolkit.base import Tool
from worker.trace_export import exported_traces

if TYPE_CHECKING:
    from infra.egress.local import LocalEgress
    from infra.k8s_executor.executor import KubernetesExecutor
    from worker.agent.supervisor import Supervisor

PROGRAM = "swissbrain-worker"
PUBLISH_S = 3.0
"""Longest wait for QStash at the end."""


async def work(variables: Mapping[str, str], *, unsafe: bool) -> None:
    """Build all parts and work until drained. Raises SettingsError."""
    env = Env(variables)
    settings, store_settings = WorkerSettings.from_env(env), StoreSettings.from_env(env)
    llm, agent_settings = LlmSettings.from_env(env), AgentSettings.from_env(env)
    network = NetworkSettings.from_env(env)
    browsing, fetching = BrowserSettings.from_env(env), FetchSettings.from_env(env)
    redis = RedisTcp(RedisTcpSettings.from_env(env), metrics.redis_command)
    s3 = S3Settings.from_env(env)
    workspaces = Workspaces(s3, observer=metrics.S3Traffic())
    access = QStashAccess.for_publishing(env)
    qstash = QStashPublisher(access) if access else None
    events = EventPublisher(WebhookStore(redis, store_settings.keys), qstash) if qstash else None
    store = WorkQueue(redis, store_settings.keys, retention_s=store_settings.retention_s, events=events)
    if settings.executor == "kubernetes" and unsafe:
        raise SettingsError("--unsafe-no-sandbox is for WORKER_EXECUTOR=local alone")
    cluster = await _cluster(env, store_settings, s3, settings, store) if settings.executor == "kubernetes" else None
    if cluster:
        browsing = replace(browsing, place="image" if cluster.opens_sessions else "nowhere")
    tools = registry(fetching, network, browsing)
    scratch = ScratchRoot(settings.root / settings.name)
    local = LocalExecutor(scratch, network=_egress(network), unsafe=unsafe)
    executor: Executor = cluster or local
    part = "cluster" if cluster else "sandbox"
    fitness = Fitness({part: executor.check, "object store": workspaces.check})
    keeper = LeaseKeeper(store, settings.lease_s)
    agent = _agent(llm, agent_settings, tools) if llm else None
    strategy = PlanOrPrompt(PlanWalker(tools), agent)
    runner = Runner(store, workspaces, executor, strategy, log_window_s=settings.log_window_s)
    beside = [events.publish_forever] if events else []
    loop = WorkerLoop(settings, store, redis, keeper, runner, scratch, fitness, beside)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, loop.drain)
    try:
        _watch(keeper, fitness, settings, cluster)
        with exported_traces(env, settings.name), _health(keeper.heartbeat, fitness, settings, cluster):
            if llm is not None:
                first, *others = (model.name for model in llm.models)
                log_lines.log("model.configured", model=first, fallbacks=others, host=llm.host)
            log_lines.log("worker.started", worker=settings.name, slots=settings.slots)
            exempt_startup_objects()
            await loop.run()
    finally:
        if events and qstash:
            await _publish_rest(events, qstash)
        if agent:
            await agent.close()
        if cluster:
            await cluster.close()
        await redis.close()
        workspaces.close()
    # Skipped after an error: programs may still be running then, and the next worker removes the folder.
    local.close()
    log_lines.log("worker.stopped", worker=settings.name)


async def _publish_rest(events: EventPublisher, qstash: QStashPublisher) -> None:
    """Publish the events of the last runs; what QStash does not accept in time, others publish."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PUBLISH_S):
            await events.publish_noted()
    await qstash.close()


async def _cluster(
    env: Env, store_settings: StoreSettings, s3: S3Settings, settings: WorkerSettings, store: WorkQueue
) -> "KubernetesExecutor":
    """Build the executor for Kubernetes, whose library takes a second and 60 MB. Raises SettingsError."""
    from infra.k8s_executor.settings import KubernetesSettings

    kubernetes = KubernetesSettings.from_env(env, store_settings, s3)
    try:
        from infra.k8s_executor.api import KubeApi
        from infra.k8s_executor.executor import KubernetesExecutor
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"WORKER_EXECUTOR=kubernetes needs '{error.name}': install swissbrain-server[worker,kubernetes]"
        ) from None
    api = await KubeApi.connect(kubernetes.kubeconfig, kubernetes.profile.namespace)
    output = settings.root / settings.name / "output"
    proxy_url = _proxy_urls(kubernetes.egress, kubernetes.egress_key) if kubernetes.egress_key else None
    return KubernetesExecutor(api, kubernetes.profile, output, store.open_execution, store.running_fence, proxy_url)


def _proxy_urls(address: str, key: str) -> Callable[[Command], str]:
    """Return the function that makes the URL of the egress proxy for a command in a pod."""
    from infra.egress.tokens import EgressTokens
    from infra.k8s_executor.deadlines import deadlines

    tokens = EgressTokens(key)
    return lambda command: tokens.proxy_url(address, command, int(time.time()) + deadlines(command.timeout_s).worker_s)


def _egress(network: NetworkSettings) -> "LocalEgress | None":
    """Build the network for programs. Its libraries are imported only where the operator allows a host."""
    if not network.allows_any:
        return None
    from infra.egress.local import LocalEgress

    # Programs may open many connections, and each needs two descriptors of the worker.
    raise_descriptor_limit()
    return LocalEgress(network)


def _agent(llm: LlmSettings, settings: AgentSettings, tools: Mapping[str, Tool]) -> "Supervisor":
    """Build the agent. Its libraries are imported only where a model is configured."""
    from infra.llm_http.model import LlmHttp
    from worker.agent.supervisor import Supervisor

    return Supervisor(LlmHttp(llm), llm.models, tools, settings)


def _watch(
    keeper: LeaseKeeper, fitness: Fitness, settings: WorkerSettings, cluster: "KubernetesExecutor | None"
) -> None:
    """Let the gauges read the state of this worker."""
    metrics.SLOTS.set(settings.slots)
    metrics.ACTIVE_RUNS.set_function(lambda: len(keeper))
    for part in fitness.parts:
        metrics.FIT.labels(part).set_function(partial(fitness.passed, part))
    metrics.REDIS_REPLY_AGE.set_function(keeper.heartbeat.age_s)
    if cluster:
        metrics.EXECUTOR_AGE.labels("kubernetes").set_function(lambda: cluster.observed_age_s)


def _health(
    heartbeat: Heartbeat, fitness: Fitness, settings: WorkerSettings, cluster: "KubernetesExecutor | None"
) -> AbstractContextManager[object]:
    """Return the context of the liveness endpoint; it does nothing if no port is set."""
    if settings.health_port is None:
        return nullcontext()
    # Redis replies to an idle worker at least every MAX_BLOCK_S, to a busy one every third of the lease.
    max_age_s = max(MAX_BLOCK_S, settings.lease_s / 3) + 60
    age_s = (lambda: cluster.observed_age_s) if cluster else None
    return serve_health(heartbeat, fitness, settings.health_host, settings.health_port, max_age_s, age_s)


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
    except ExceptionGroup as group:
        rejected, others = group.split(StoreRejected)
        if rejected is None or others:
            raise
        # Of the first claim: this worker was set up with a user of Redis that lacks a right, or with another server.
        print(f"{PROGRAM}: Redis rejects the calls of this worker: {rejected.exceptions[0]}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
