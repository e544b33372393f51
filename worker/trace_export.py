"""Export of spans to a collector by OTLP over HTTP, as OpenTelemetry's own environment variables say."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from infra.settings import Env, SettingsError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE = "swissbrain-worker"
LAST_EXPORT_S = 3.0
"""Time that the export of the last spans may take at the end of the worker."""


@contextmanager
def exported_traces(env: Env, worker: str) -> Iterator[None]:
    """Export the spans that are recorded meanwhile, in a thread of their own, if a collector is set.

    Spans are dropped while the collector cannot be reached and 2,048 of them wait. `worker` is the name of the worker.
    Raises SettingsError.
    """
    set_names = [name for name in _ENDPOINTS if env.optional(name)]
    if not set_names:
        yield
        return
    for name in set_names:
        env.url(name, "http", "https")
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(f"{set_names[0]} needs '{error.name}': install swissbrain-server[worker,traces]") from None
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins.
    own = Resource.create({"service.name": SERVICE, "service.instance.id": worker})
    resource = own.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # A daemon, because a collector that accepts connections and never replies would hold up the end of the process.
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_EXPORT_S)
