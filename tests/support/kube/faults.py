"""Faults of the API server and of its cluster, set and removed by tests at any time."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.support.kube.errors import KubeError, Obj


@dataclass(frozen=True)
class Fail:
    """Answer with an error instead of carrying out the request."""

    status: int = 500
    retry_after_s: int | None = None
    reason: str = ""
    message: str = ""

    def error(self) -> KubeError:
        """Return the error."""
        reasons = {403: "Forbidden", 409: "Conflict", 410: "Expired", 429: "TooManyRequests", 504: "Timeout"}
        reason = self.reason or reasons.get(self.status, "InternalError")
        message = self.message or f"injected {reason}: the server has asked for the client to slow down or to give up"
        return KubeError(self.status, reason, message, None, self.retry_after_s)


@dataclass(frozen=True)
class Deny:
    """Refuse a valid request as a ValidatingAdmissionPolicy does: 422 with the reason Invalid."""

    policy: str = "tools"
    message: str = "the image is not allowed"


@dataclass(frozen=True)
class Delay:
    """Carry out the request after some seconds."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """Close the connection: before the request is carried out, or after that instead of answering."""

    when: Literal["before", "after"] = "before"


Effect: TypeAlias = Fail | Deny | Delay | Cut


@dataclass
class RequestFault:
    """Fault of requests. `times` counts down; None has no end. `chance` is drawn for each request."""

    effect: Effect
    verbs: frozenset[str]
    resource: str
    times: int | None
    chance: float


@dataclass
class PodFault:
    """Fault of pods that are made from now on, as long as `times` allows and `match` is true for the pod.

    `failed_create`: no pod comes, and the Job controller reports the reason in an event. `unschedulable`: no node takes
    the pod. `waiting`: reason that keeps the container from starting, as ErrImagePull. `start_s`: delay of its start.
    `ends`: reason and exit code that are reported, whatever the program did. `start_error`: exit 128, never run.
    """

    failed_create: str = ""
    unschedulable: str = ""
    waiting: str = ""
    message: str = ""
    start_s: float = 0.0
    ends: tuple[str, int] | None = None
    start_error: bool = False
    times: int | None = None
    match: Callable[[Obj], bool] = lambda _: True


@dataclass
class Faults:
    """Faults of a server.

    `stale_s`: reads that accept any version (resourceVersion=0) see the cluster as it was. `watch_lag_s`: delay of
    events in watches. `watch_s`: bounds of the random lifetime after which a watch is cut. `gone_as_status`: a watch
    from a forgotten version is answered with 410, instead of 200 with an event ERROR. `gone_chance`: chance that a
    watch ends with such an event. `log_bytes`: size at which the log of a container is rotated. `down`: connections
    are closed without an answer.
    """

    requests: list[RequestFault] = field(default_factory=list)
    pods: list[PodFault] = field(default_factory=list)
    stale_s: float = 0.0
    watch_lag_s: float = 0.0
    watch_s: tuple[float, float] | None = None
    gone_as_status: bool = False
    gone_chance: float = 0.0
    log_bytes: int | None = None
    down: bool = False
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def add(
        self, effect: Effect, *verbs: str, resource: str = "", times: int | None = None, chance: float = 1.0
    ) -> RequestFault:
        """Add a fault of requests with these verbs (all without any): create, get, list, watch, patch, delete, …"""
        fault = RequestFault(effect, frozenset(verbs), resource, times, chance)
        self.requests.append(fault)
        return fault

    def add_pod(self, fault: PodFault) -> PodFault:
        """Add a fault of pods."""
        self.pods.append(fault)
        return fault

    def heal(self) -> None:
        """Remove all faults. Pods that were made under a fault keep it."""
        fresh = Faults()
        for name in vars(fresh).keys() - {"rng"}:
            setattr(self, name, getattr(fresh, name))

    def for_request(self, verb: str, resource: str) -> list[Effect]:
        """Return the effects on a request, and count them down."""
        found = []
        for fault in self.requests:
            if (fault.verbs and verb not in fault.verbs) or fault.resource not in {"", resource} or fault.times == 0:
                continue
            if fault.chance < 1 and self.rng.random() >= fault.chance:
                continue
            if fault.times is not None:
                fault.times -= 1
            found.append(fault.effect)
        return found

    def for_pod(self, pod: Obj) -> PodFault:
        """Return the fault of a pod that is about to be made, and count it down."""
        for fault in self.pods:
            if fault.times != 0 and fault.match(pod):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return PodFault()
