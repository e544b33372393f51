"""How each part is started: its command line and environment. Pure builders; nothing here starts anything."""

import hashlib
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.devstack import s3_server
from infra.devstack.config import SCOPES, USER, Site
from infra.devstack.port_numbers import HOST
from infra.gateway.acl import ACL_RULES

GRACE_S = 5
"""What a stopping worker leaves its runs to reach a step boundary; those that do not go on at the next start."""

REDIS_MEMORY = "1gb"

GATEWAY_USER = "gateway"
"""User of Redis for the gateway, which may do what the gateway serves: its clients can send scripts."""

FILES_OF_SECRETS = frozenset({"SWISSBRAIN_API_KEYS_FILE", "EDGE_STREAM_TOKEN_KEY_FILE"})


@dataclass(frozen=True)
class Part:
    """A child process. `stop_timeout_s` after the stop signal it is killed."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    start_timeout_s: float = 30.0


def redis_config(site: Site) -> str:
    """Valkey's configuration: every write is in the file before it is acknowledged, so it survives a kill.

    It is flushed to the disk each second, so a power failure may cost the last one. A full memory refuses writes: a
    queue must never evict.
    """
    return "\n".join(
        [
            f"bind {HOST}",
            f"port {site.ports.redis}",
            f"requirepass {site.credentials.redis_password}",
            f"user {GATEWAY_USER} on >{site.credentials.redis_password} {ACL_RULES}",
            "dir ./",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {REDIS_MEMORY}",
            "maxmemory-policy noeviction",
            "",
        ]
    )


def redis(site: Site, base: Mapping[str, str], binary: Path) -> Part:
    """Valkey."""
    return Part(
        name="redis",
        command=(str(binary), f"./{site.layout.redis_config.name}"),
        environment=dict(base),
        folder=site.layout.redis,
    )


def s3(site: Site, base: Mapping[str, str], binary: Path) -> Part:
    """The S3 server. It is killed at once: that loses nothing, and it takes too long to stop otherwise."""
    return Part(
        name="s3",
        command=tuple(
            s3_server.command(site.layout.s3, site.ports.s3, site.layout.s3_config.absolute(), binary=str(binary))
        ),
        environment=s3_server.environment(dict(base)),
        folder=site.layout.s3,
        stop_signal=signal.SIGKILL,
        start_timeout_s=90.0,
    )


def gateway(site: Site, base: Mapping[str, str]) -> Part:
    """The Upstash REST protocol before Valkey."""
    return _python(
        "gateway",
        site,
        base,
        "infra.gateway",
        GATEWAY_REDIS_URL=site.redis_url.replace("redis://:", f"redis://{GATEWAY_USER}:"),
        GATEWAY_TOKEN=site.credentials.rest_token,
        GATEWAY_HOST=HOST,
        GATEWAY_PORT=str(site.ports.gateway),
    )


def api(site: Site, base: Mapping[str, str]) -> Part:
    """The HTTP API, with the one user. Pages of any origin may call it, which without the token gets them nothing."""
    digest = hashlib.sha256(site.credentials.api_token.encode()).hexdigest()
    return _python(
        "api",
        site,
        base,
        "edge_api",
        EDGE_CORS_ORIGINS=base.get("EDGE_CORS_ORIGINS", "*"),
        EDGE_HOST=HOST,
        EDGE_PORT=str(site.ports.api),
        EDGE_STREAM_TOKEN_KEY=site.credentials.stream_token_key,
        SWISSBRAIN_API_KEYS=json.dumps([{"user": USER, "scopes": SCOPES, "sha256": digest}]),
        UPSTASH_REDIS_REST_URL=site.rest_url,
        UPSTASH_REDIS_REST_TOKEN=site.credentials.rest_token,
        **site.s3_variables,
    )


def worker(site: Site, base: Mapping[str, str], number: int, *, unsafe: bool = False) -> Part:
    """A worker, which keeps its sandboxes in a scratch folder of its own."""
    name = f"worker-{number}"
    return _python(
        name,
        site,
        base,
        "worker",
        *(["--unsafe-no-sandbox"] if unsafe else []),
        REDIS_URL=site.redis_url,
        WORKER_NAME=name,
        WORKER_ROOT=str(site.layout.work / name),
        WORKER_GRACE_S=str(GRACE_S),
        **site.s3_variables,
    )


def base_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What every part inherits: all but what would point it elsewhere, and no proxy before the loopback interface."""
    kept = {
        name: value for name, value in inherited.items() if name not in FILES_OF_SECRETS and not name.startswith("AWS_")
    }
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, [kept.get(name), HOST]))
    return kept


def _python(name: str, site: Site, base: Mapping[str, str], module: str, *flags: str, **variables: str) -> Part:
    return Part(
        name=name,
        command=(sys.executable, "-P", "-m", module, *flags),
        environment={**base, **variables},
        folder=site.layout.root,
        stop_timeout_s=GRACE_S + 7.0,
    )
