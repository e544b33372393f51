"""What a worker is told, once, at its start."""

import os
import re
import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.settings import Env, SettingsError

_PORT = "WORKER_HEALTH_PORT"


@dataclass(frozen=True)
class WorkerSettings:
    """`name`: unique among the live workers; its scratch directory below `root` is this worker's alone.
    `slots`: runs at a time. `lease_s`: how long a run stays ours without renewal. `grace_s`: what SIGTERM leaves
    a run to reach a step boundary. `root`: scratch space of the workers of this host. `health_port`: where
    `GET /health` is answered; None: nowhere."""

    name: str
    slots: int
    lease_s: float
    grace_s: float
    root: Path
    health_host: str = "127.0.0.1"
    health_port: int | None = None

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return int(self.lease_s * 1000)

    @classmethod
    def from_env(cls, env: Env) -> "WorkerSettings":
        """From `WORKER_NAME WORKER_SLOTS WORKER_LEASE_S WORKER_GRACE_S WORKER_ROOT`
        and `WORKER_HEALTH_HOST WORKER_HEALTH_PORT`."""
        fallback = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        return cls(
            name=_name(env.text("WORKER_NAME", fallback)),
            slots=env.integer("WORKER_SLOTS", 4, low=1, high=1000),
            lease_s=env.number("WORKER_LEASE_S", 15.0, low=0.5, high=3600.0),
            grace_s=env.number("WORKER_GRACE_S", 25.0, low=0.0, high=86_400.0),
            health_host=env.text("WORKER_HEALTH_HOST", "127.0.0.1"),
            health_port=env.integer(_PORT, 0, low=1, high=65535) if env.optional(_PORT) else None,
            root=Path(env.text("WORKER_ROOT", str(Path(tempfile.gettempdir()) / "swissbrain-worker"))),
        )


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise SettingsError("WORKER_NAME must be 1 to 100 letters, digits, dots, underscores or hyphens")
    return text
