"""Settings of a worker, read once from environment variables at its start."""

import os
import re
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from infra.settings import Env, SettingsError

_PORT = "WORKER_HEALTH_PORT"
LOG_WINDOW_S = 0.1
ExecutorKind: TypeAlias = Literal["local", "kubernetes"]
EXECUTORS: Mapping[str, ExecutorKind] = {"local": "local", "kubernetes": "kubernetes"}


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker.

    `name`: unique among the live workers. `slots`: number of concurrent runs. `lease_s`: length of a lease; a run
    whose lease is not renewed for that time is given to another worker. `grace_s`: time after SIGTERM in which runs
    may reach a step boundary. `root`: scratch space shared by the workers of this host; the sub-folder `name` belongs
    to this worker. `log_window_s`: time in which log events wait for others, to be stored together. `executor`: where
    programs run. `health_port`: port of `GET /health`; None: there is no such endpoint.
    """

    name: str
    slots: int
    lease_s: float
    grace_s: float
    root: Path
    log_window_s: float = LOG_WINDOW_S
    executor: ExecutorKind = "local"
    health_host: str = "127.0.0.1"
    health_port: int | None = None

    @property
    def lease_ms(self) -> int:
        """Length of a lease in milliseconds."""
        return int(self.lease_s * 1000)

    @classmethod
    def from_env(cls, env: Env) -> "WorkerSettings":
        """Read `WORKER_NAME WORKER_SLOTS WORKER_LEASE_S WORKER_GRACE_S WORKER_ROOT WORKER_EXECUTOR`,
        `WORKER_LOG_WINDOW_MS` and `WORKER_HEALTH_HOST WORKER_HEALTH_PORT`. Raises SettingsError."""
        default_name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        return cls(
            name=_name(env.text("WORKER_NAME", default_name)),
            slots=env.integer("WORKER_SLOTS", 4, low=1, high=1000),
            lease_s=env.number("WORKER_LEASE_S", 15.0, low=0.5, high=3600.0),
            grace_s=env.number("WORKER_GRACE_S", 25.0, low=0.0, high=86_400.0),
            log_window_s=env.integer("WORKER_LOG_WINDOW_MS", 100, low=1, high=1000) / 1000,
            executor=_executor(env.text("WORKER_EXECUTOR", "local")),
            health_host=env.text("WORKER_HEALTH_HOST", "127.0.0.1"),
            health_port=env.integer(_PORT, 0, low=1, high=65535) if env.optional(_PORT) else None,
            root=_root(env),
        )


def _executor(text: str) -> ExecutorKind:
    kind = EXECUTORS.get(text)
    if kind is None:
        raise SettingsError(f"WORKER_EXECUTOR must be {' or '.join(EXECUTORS)}, not '{text}'")
    return kind


def _root(env: Env) -> Path:
    if root := env.optional("WORKER_ROOT"):
        try:
            return Path(root).absolute()  # programs are started in another folder
        except FileNotFoundError:
            raise SettingsError(f"WORKER_ROOT is '{root}', and the current folder does not exist any more") from None
    try:
        return Path(tempfile.gettempdir()) / "swissbrain-worker"
    except FileNotFoundError:  # the root file system of a container may be read-only
        raise SettingsError("WORKER_ROOT is not set, and there is no writable folder for temporary files") from None


def _name(text: str) -> str:
    # The name becomes the name of a folder.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise SettingsError(
            "WORKER_NAME must be 1 to 100 letters, digits, dots, underscores or hyphens, the first a letter or digit"
        )
    return text
