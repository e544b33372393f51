"""Specifications of the stack's processes: command line and environment. Pure builders that start nothing."""

import hashlib
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.devstack import s3_server
from infra.devstack.config import SCOPES, USER, StackConfig
from infra.devstack.port_numbers import HOST
from infra.gateway.acl import ACL_RULES, CLIENT_LIMITS

GRACE_S = 5
"""Time that a stopping worker gives its runs to reach a step boundary. Other runs continue at the next start."""

LOG_WINDOW_MS = "10"
"""Window of the workers' log events. The commands of the stack's own Redis are not billed, so logs can be quicker."""

REDIS_MEMORY = "1gb"

GATEWAY_USER = "gateway"
"""User of Redis for the gateway, which may do what the gateway serves: its clients can send scripts."""

FILES_OF_SECRETS = frozenset({"SWISSBRAIN_API_KEYS_FILE", "EDGE_STREAM_TOKEN_KEY_FILE", "EDGE_WEBHOOK_KEY_FILE"})


@dataclass(frozen=True)
class ProcessSpec:
    """Specification of a child process. It is killed `stop_timeout_s` after the stop signal."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    start_timeout_s: float = 30.0


def redis_config(config: StackConfig) -> str:
    """Return Valkey's configuration.

    Every write is in the append-only file before it is acknowledged, so it survives a kill of the process. The file is
    flushed to the disk each second, so a power failure can lose the last second.
    """
    # noeviction: with full memory writes are refused, because a queue must never lose entries.
    return "\n".join(
        [
            f"bind {HOST}",
            f"port {config.ports.redis}",
            f"requirepass {config.credentials.redis_password}",
            f"user {GATEWAY_USER} on >{config.credentials.redis_password} {ACL_RULES}",
            "dir ./",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {REDIS_MEMORY}",
            "maxmemory-policy noeviction",
            *CLIENT_LIMITS,
            "",
        ]
    )


def redis(config: StackConfig, base: Mapping[str, str], binary: Path) -> ProcessSpec:
    """Return the specification of Valkey."""
    return ProcessSpec(
        name="redis",
        command=(str(binary), f"./{config.data_dir.redis_config.name}"),
        environment=dict(base),
        folder=config.data_dir.redis,
    )


def s3(config: StackConfig, base: Mapping[str, str], binary: Path) -> ProcessSpec:
    """Return the specification of the S3 server."""
    return ProcessSpec(
        name="s3",
        command=tuple(
            s3_server.command(
                config.data_dir.s3,
                config.ports.s3,
                config.data_dir.s3_config.absolute(),
                binary=str(binary),
                cors_origins=_cors_origins(base).replace(" ", ""),
            )
        ),
        environment=s3_server.environment(dict(base)),
        folder=config.data_dir.s3,
        stop_signal=signal.SIGKILL,  # loses nothing; after SIGTERM it takes 16 s and more to stop (see s3_server)
        start_timeout_s=90.0,
    )


def gateway(config: StackConfig, base: Mapping[str, str]) -> ProcessSpec:
    """Return the specification of the Upstash REST gateway in front of Valkey."""
    return _python(
        "gateway",
        config,
        base,
        "infra.gateway",
        GATEWAY_REDIS_URL=config.redis_url.replace("redis://:", f"redis://{GATEWAY_USER}:"),
        GATEWAY_TOKEN=config.credentials.rest_token,
        GATEWAY_HOST=HOST,
        GATEWAY_PORT=str(config.ports.gateway),
    )


def qstash(config: StackConfig, base: Mapping[str, str]) -> ProcessSpec:
    """Return the specification of the stand-in of QStash."""
    return _python(
        "qstash",
        config,
        base,
        "infra.qstash_local",
        QSTASH_LOCAL_REDIS_URL=config.redis_url,
        QSTASH_LOCAL_HOST=HOST,
        QSTASH_LOCAL_PORT=str(config.ports.qstash),
        **config.qstash_variables,
    )


def _cors_origins(base: Mapping[str, str]) -> str:
    """Return the origins, separated by commas, whose pages may call the API and upload to the S3 server."""
    # Of any origin by default. Without the token a page gets nothing.
    return base.get("EDGE_CORS_ORIGINS", "*")


def api(config: StackConfig, base: Mapping[str, str]) -> ProcessSpec:
    """Return the specification of the HTTP API with its single user."""
    digest = hashlib.sha256(config.credentials.api_token.encode()).hexdigest()
    return _python(
        "api",
        config,
        base,
        "edge_api",
        EDGE_CORS_ORIGINS=_cors_origins(base),
        EDGE_HOST=HOST,
        EDGE_PORT=str(config.ports.api),
        EDGE_PUBLIC_URL=config.api_url,
        EDGE_STREAM_TOKEN_KEY=config.credentials.stream_token_key,
        EDGE_WEBHOOK_KEY=config.credentials.webhook_key,
        SWISSBRAIN_API_KEYS=json.dumps([{"user": USER, "scopes": SCOPES, "sha256": digest}]),
        UPSTASH_REDIS_REST_URL=config.rest_url,
        UPSTASH_REDIS_REST_TOKEN=config.credentials.rest_token,
        QSTASH_URL=config.qstash_url,
        **config.qstash_variables,
        **config.s3_variables,
    )


def worker(config: StackConfig, base: Mapping[str, str], number: int, *, unsafe: bool = False) -> ProcessSpec:
    """Return the specification of a worker, which has its own scratch folder."""
    name = f"worker-{number}"
    return _python(
        name,
        config,
        base,
        "worker",
        *(["--unsafe-no-sandbox"] if unsafe else []),
        EDGE_PUBLIC_URL=config.api_url,
        QSTASH_URL=config.qstash_url,
        QSTASH_TOKEN=config.credentials.qstash_token,
        REDIS_URL=config.redis_url,
        WORKER_NAME=name,
        WORKER_ROOT=str(config.data_dir.work / name),
        WORKER_GRACE_S=str(GRACE_S),
        WORKER_LOG_WINDOW_MS=base.get("WORKER_LOG_WINDOW_MS", LOG_WINDOW_MS),
        **config.s3_variables,
    )


def base_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that all processes inherit.

    Leaves out variables that would select other credentials, and excludes the loopback interface from proxies.
    """
    variables = {
        name: value for name, value in inherited.items() if name not in FILES_OF_SECRETS and not name.startswith("AWS_")
    }
    return {**variables, **loopback_exclusions(variables)}


def loopback_exclusions(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that exclude the loopback interface from proxies, with what they exclude already."""
    return {name: ",".join(filter(None, [inherited.get(name), HOST])) for name in ("NO_PROXY", "no_proxy")}


def _python(
    name: str, config: StackConfig, base: Mapping[str, str], module: str, *flags: str, **variables: str
) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-P", "-m", module, *flags),
        environment={**base, **variables},
        folder=config.data_dir.root,
        stop_timeout_s=GRACE_S + 7.0,
    )
