"""Export of spans to a collector by OTLP over HTTP, as OpenTelemetry's own environment variables say."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infra.http_limits import LogInterval
from infra.logging import log
from infra.settings import Env, SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_SHARED = "OTEL_EXPORTER_OTLP_ENDPOINT"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", _SHARED)
_PREFIXES = tuple(name.removesuffix("ENDPOINT") for name in _ENDPOINTS)
_FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOL = "http/protobuf"
_LIBRARY = "opentelemetry"
_OF_SETTINGS = tuple(f"{_LIBRARY}.{part}" for part in ("exporter", "sdk.trace", "util"))
"""Loggers of the library that complain about variables when the exporter is built."""
SERVICE = "swissbrain-worker"
LAST_EXPORT_S = 3.0
"""Time that the export of the last spans may take at the end of the worker."""
MAX_REASON_CHARS = 300


@contextmanager
def exported_traces(env: Env, worker: str) -> Iterator[None]:
    """Export the spans that are recorded meanwhile, in a thread of their own, if a collector is set.

    Spans are dropped while the collector cannot be reached and 2,048 of them wait. `worker` is the name of the worker.
    Raises SettingsError.
    """
    endpoint = _endpoint(env)
    if endpoint is None:
        yield
        return
    library_log = _LibraryLog(_secrets(env))
    logger = logging.getLogger(_LIBRARY)
    # Until the process ends, because the thread of the last export may outlive this function.
    logger.handlers, logger.propagate = [library_log], False
    provider = _provider(endpoint, worker, library_log)
    try:
        yield
    finally:
        # A daemon, because a collector that accepts connections and never replies would hold up the end of the process.
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_EXPORT_S)


def _endpoint(env: Env) -> str | None:
    """Return the name of the variable with the collector; None if there is none. Raises SettingsError.

    What the library would notice only at an export, or not at all, is checked here.
    """
    names = [name for name in _ENDPOINTS if env.optional(name)]
    exporter = env.text(_EXPORTER, "otlp")
    if exporter not in {"otlp", "none"}:
        raise SettingsError(f"{_EXPORTER} must be otlp or none, not '{exporter}'")
    if not names or exporter == "none":
        return None
    for name in names:
        if urlsplit(env.url(name, "http", "https")).query and name == _SHARED:
            raise SettingsError(f"{name} must be a URL without '?', because /v1/traces is added at its end")
    for prefix in _PREFIXES:
        if env.text(f"{prefix}PROTOCOL", _PROTOCOL) != _PROTOCOL:
            raise SettingsError(f"{prefix}PROTOCOL must be {_PROTOCOL}, the only protocol of the worker")
        for name in (f"{prefix}{each}" for each in _FILES):
            path = env.optional(name)
            if path and not os.access(path, os.R_OK):
                raise SettingsError(f"{name} leads to '{Path(path)}', which cannot be read")
    return names[0]


def _provider(endpoint: str, worker: str, library_log: "_LibraryLog") -> "TracerProvider":
    """Build the exporter, and let it record from now on. Raises SettingsError."""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(f"{endpoint} needs '{error.name}': install swissbrain-server[worker,traces]") from None
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins.
    own = Resource.create({"service.name": SERVICE, "service.instance.id": worker})
    with library_log.wrong_settings():
        resource = own.merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


class _LibraryLog(logging.Handler):
    """Log of the library, whose texts repeat URLs and headers: as our lines, without secrets, one in 10 s."""

    def __init__(self, secrets: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._secrets = secrets
        self._interval = LogInterval()
        self._complaints: list[str] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        reason = self._clean(record.getMessage())
        if self._complaints is not None and record.name.startswith(_OF_SETTINGS):
            self._complaints.append(reason)
        elif (count := self._interval.count(time.monotonic())) is not None:
            log("traces.problem", level=logging.WARNING, reason=reason, count=count)

    @contextmanager
    def wrong_settings(self) -> Iterator[None]:
        """Turn what the library says about its variables meanwhile into SettingsError."""
        self._complaints = complaints = []
        try:
            yield
        except (ValueError, TypeError, OSError) as exc:
            complaints.append(self._clean(str(exc)))
        finally:
            self._complaints = None
        if complaints:
            given = sorted(name for name in os.environ if name.startswith("OTEL_") and not name.endswith("_ENDPOINT"))
            named = [name for name in given if name in complaints[0]] or given
            raise SettingsError(f"{' or '.join(named)} is wrong: {complaints[0]}")

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return " ".join(text.split())[:MAX_REASON_CHARS]


def _secrets(env: Env) -> list[str]:
    """Return the texts of the variables that may be secrets, the longest first."""
    found = set()
    for prefix in _PREFIXES:
        url, headers = urlsplit(env.text(f"{prefix}ENDPOINT", "http://")), env.text(f"{prefix}HEADERS", ",")
        pairs = headers.split(",")
        found |= {url.query, url.password, url.username, headers, *pairs, *(pair.partition("=")[2] for pair in pairs)}
    return sorted((each.strip() for each in found if each and len(each.strip()) > 2), key=len, reverse=True)
