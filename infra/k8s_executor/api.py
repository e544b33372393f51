"""Thin client of the Kubernetes API: Jobs, pods and events of one namespace. The only module that imports its library.

Bodies are plain JSON: the models of the library refuse dictionaries, and reading thousands of pods into them is slow.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import OpenApiException
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from infra.contract.errors import ExecutorUnavailable
from infra.k8s_executor.job import MANAGED, Manifest
from infra.k8s_executor.views import EventView, JobView, ListView, PodView, StatusView, WatchEvent
from infra.settings import SettingsError

T = TypeVar("T")
REQUEST_S = 10.0
"""Time limit for one try of a request."""
PATIENCE_S = 60.0
"""Time for which a request is repeated. While the API server is down, there is nothing better to do."""
LONGEST_WAIT_S = 5.0
"""Longest pause between two tries, also if the API server asks for a longer one."""
PAGE = 250
"""Pods in one reply."""
WATCH_SILENCE_S = 10.0
"""Time that a watch may take beyond its timeout."""


class ApiUnreachable(ExecutorUnavailable):
    """API server that does not answer, or asks for another try. The request may have been carried out."""

    def __init__(self, message: str, after_s: float = 0) -> None:
        super().__init__(message)
        self.after_s = after_s


class ApiRefused(ExecutorUnavailable):
    """Request that the API server refuses. `status` is the HTTP status, `reason` the word of the API for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"the Kubernetes API refused a request with {status} {reason}: {message[:1000]}")
        self.status = status
        self.reason = reason


class KubeApi:
    """Client for one namespace. All methods raise ApiUnreachable, and ApiRefused unless they say otherwise.

    `patience_s` is the time for which a request is repeated while the API server does not answer.
    """

    def __init__(self, configuration: Configuration, namespace: str, patience_s: float = PATIENCE_S) -> None:
        self.namespace = namespace
        self._patience_s = patience_s
        self._client: Any = ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: Path | None, namespace: str) -> "KubeApi":
        """Return a client with the access of a kubeconfig, or of the pod's service account. Raises SettingsError."""
        configuration, load = Configuration(), cast("Any", config)
        # Python 3.13 demands extensions by default that the authorities of many clusters lack (EKS, microk8s).
        configuration.disable_strict_ssl_verification = True
        try:
            if kubeconfig:
                await load.load_kube_config(str(kubeconfig), client_configuration=configuration)
            else:
                load.load_incluster_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            reason = str(error).rstrip(".")
            raise SettingsError(
                f"no access to Kubernetes ({reason}): set KUBECONFIG, or run the worker in a pod with a service account"
            ) from None
        return cls(configuration, namespace)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def create_job(self, manifest: Manifest, *, dry_run: bool = False) -> tuple[JobView, list[str]]:
        """Create a Job; return it, and the warnings of the API server. ApiRefused has status 409 if it exists."""
        query = {"dryRun": "All"} if dry_run else {}
        body, warnings = await self._request("POST", self._path("jobs"), query, manifest)
        return decoded(body, JobView), warnings

    async def job(self, name: str) -> JobView | None:
        """Return a Job, None if there is none."""
        try:
            body, _ = await self._request("GET", self._path("jobs", name))
        except ApiRefused as error:
            if error.status != 404:
                raise
            return None
        return decoded(body, JobView)

    async def jobs(self, selector: Mapping[str, str], *, patience_s: float | None = None) -> list[JobView]:
        """Return the Jobs with these labels. `patience_s` 0: one try."""
        query = {"labelSelector": _selector(selector)}
        found, _ = await self._list(self._path("jobs"), JobView, query, patience_s=patience_s)
        return found

    async def delete_job(
        self, name: str, uid: str = "", *, dry_run: bool = False, patience_s: float | None = None
    ) -> None:
        """Delete a Job with its pods, unless there is none, or another one than `uid`. `patience_s` 0: one try."""
        # Without this policy the pods of the Job would be left running.
        query = {"propagationPolicy": "Background"} | ({"dryRun": "All"} if dry_run else {})
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", self._path("jobs", name), query, body, patience_s=patience_s)
        except ApiRefused as error:
            if error.status not in {404, 409}:
                raise

    async def pods(self, selector: Mapping[str, str] = MANAGED, *, limit: int = 0) -> tuple[list[PodView], str]:
        """Return the pods with these labels, at most `limit` if it is given, and the version of the list."""
        return await self._list(self._path("pods"), PodView, {"labelSelector": _selector(selector)}, limit)

    async def events(self, name: str, *, limit: int = 50) -> list[EventView]:
        """Return the events of the object with this name."""
        query = {"fieldSelector": f"involvedObject.name={name}"}
        found, _ = await self._list(self._path("events"), EventView, query, limit)
        return found

    async def watch_pods(self, version: str, timeout_s: int) -> AsyncGenerator[WatchEvent, None]:
        """Yield the changes of all pods of tools after a version of their list, for at most `timeout_s`."""
        query = {
            "labelSelector": _selector(MANAGED),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(timeout_s),
        }
        total_s = timeout_s + WATCH_SILENCE_S
        async with self._responding("GET", self._path("pods"), query, None, total_s) as response:
            if response.status != 200:
                raise _refusal("GET", response.status, await response.read(), "")
            while line := await response.content.readline():
                yield decoded(line, WatchEvent)

    async def check_watch(self, version: str) -> None:
        """Raise ApiRefused if pods may not be watched."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "1"}
        async with self._responding("GET", self._path("pods"), query, None, REQUEST_S) as response:
            if response.status != 200:
                raise _refusal("GET", response.status, await response.read(), "")

    async def _list(
        self, path: str, kind: type[T], query: dict[str, str], limit: int = 0, patience_s: float | None = None
    ) -> tuple[list[T], str]:
        found: list[T] = []
        query = {**query, "limit": str(limit or PAGE)}
        while True:
            body, _ = await self._request("GET", path, query, patience_s=patience_s)
            page = decoded(body, ListView[kind])  # type: ignore[valid-type]
            found += page.items or []
            if limit or not page.metadata.continue_:
                return found, page.metadata.resource_version
            query["continue"] = page.metadata.continue_

    def _path(self, kind: str, name: str = "") -> str:
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        return f"{group}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        *,
        patience_s: float | None = None,
    ) -> tuple[bytes, list[str]]:
        """Return the body of a 2xx reply, and its warnings."""
        tries = AsyncRetrying(
            retry=retry_if_exception_type(ApiUnreachable),
            wait=_wait,
            stop=stop_after_delay(self._patience_s if patience_s is None else patience_s),
            reraise=True,
        )
        async for attempt in tries:
            with attempt:
                async with self._responding(method, path, query or {}, body, REQUEST_S) as response:
                    data = await response.read()
                    if not 200 <= response.status < 300:
                        raise _refusal(method, response.status, data, response.headers.get("Retry-After", ""))
                    return data, response.headers.getall("Warning", [])
        raise AssertionError("tenacity raises the last error")

    @asynccontextmanager
    async def _responding(
        self, method: str, path: str, query: Mapping[str, str], body: Manifest | None, total_s: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=REQUEST_S)
        response: aiohttp.ClientResponse | None = None
        try:
            url = await self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = (await self._client.call_api(*url, _request_timeout=timeout)).response
            yield response
        except (aiohttp.ClientError, OSError, ValueError, OpenApiException, config.ConfigException) as error:
            # OSError: also TimeoutError. ConfigException: the file with the token, which is read again every minute.
            raise ApiUnreachable(f"the Kubernetes API server does not answer: {_text(error)}") from error
        finally:
            if response is not None:
                response.close()


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.after_s if isinstance(error, ApiUnreachable) else 0
    return max(min(asked_s, LONGEST_WAIT_S), wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT_S)(state))


def _refusal(method: str, status: int, body: bytes, retry_after: str) -> ApiRefused | ApiUnreachable:
    """Return the error of a reply."""
    try:
        found = msgspec.json.decode(body, type=StatusView)
    except msgspec.MsgspecError:
        found = StatusView(message=body[:200].decode(errors="replace"))
    reason, message = found.reason or "", found.message or "no message"
    # A quota that several creations change at the same time answers some of them with a conflict.
    is_busy = method == "POST" and status == 409 and reason == "Conflict"
    if status in {408, 429} or status >= 500 or is_busy:
        after_s = float(retry_after) if retry_after.isdecimal() else 0
        return ApiUnreachable(f"the Kubernetes API server answers {status} {reason}: {message[:300]}", after_s)
    return ApiRefused(status, reason, message)


def decoded(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Return a body as a view. Raises ApiUnreachable."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ApiUnreachable(f"the Kubernetes API server sent something else than JSON of the API: {error}") from error


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _text(error: Exception) -> str:
    return f"{type(error).__name__} {str(error)[:300]}".strip()
