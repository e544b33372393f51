"""Export of traces by a worker process: to a real receiver of OTLP, and while none replies."""

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from infra.contract.runs import PlanStep
from infra.contract.states import Status
from infra.settings import Env, SettingsError
from tests.support.redis import OwnValkey, free_port
from tests.support.waiting import until
from tests.worker.rig import Rig
from tests.worker.test_health_process import watched
from worker.trace_export import exported_traces

pytestmark = pytest.mark.usefixtures("object_store")
SAY = PlanStep(tool="message", args={"text": "hi"})


@pytest.fixture
def collector() -> Iterator[tuple[str, "queue.Queue[ExportTraceServiceRequest]"]]:
    """A receiver of OTLP over HTTP: its address, and what it was sent."""
    received: queue.Queue[ExportTraceServiceRequest] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            received.put(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


async def test_a_worker_exports_its_spans_at_the_latest_when_it_ends(
    own: Rig, server: OwnValkey, tmp_path: Path, collector: tuple[str, "queue.Queue[ExportTraceServiceRequest]"]
) -> None:
    address, received = collector
    options = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=geneva"}
    async with watched("worker", server.settings, tmp_path, WORKER_NAME="w-1", **options) as worker:
        run_id = await own.submit(plan=[SAY])
        assert (await own.ended(run_id)).status is Status.SUCCEEDED
        worker.process.end(signal.SIGTERM)
        assert worker.process.exit_code() == 0
    resource_spans = [one for request in [*received.queue] for one in request.resource_spans]
    resource = {pair.key: pair.value.string_value for one in resource_spans for pair in one.resource.attributes}
    assert (resource["service.name"], resource["service.instance.id"], resource["service.namespace"]) == (
        "swissbrain-worker",
        "w-1",
        "geneva",
    )
    names = {span.name for one in resource_spans for scope in one.scope_spans for span in scope.spans}
    assert names == {"queue", "run", "execute_tool message"}


async def test_runs_and_the_end_of_the_worker_do_not_wait_for_a_collector_that_hangs(
    own: Rig, server: OwnValkey, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and never replies
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with watched("worker", server.settings, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=address) as worker:
            run_id = await own.submit(plan=[SAY])
            assert (await own.ended(run_id)).status is Status.SUCCEEDED
            worker.process.end(signal.SIGTERM, timeout_s=60)
            assert worker.process.exit_code() == 0


async def test_no_secret_of_the_collector_is_logged(own: Rig, server: OwnValkey, tmp_path: Path) -> None:
    port = free_port()
    options = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://ada:the-password@127.0.0.1:{port}/v1/traces?key=the-key",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20the-token",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
    }
    async with watched("worker", server.settings, tmp_path, **options):
        run_id = await own.submit(plan=[SAY])
        assert (await own.ended(run_id)).status is Status.SUCCEEDED
        log = tmp_path / "worker.log"

        async def is_logged() -> bool:
            return "traces.problem" in log.read_text()

        await until(is_logged, "the failure is logged")
    output = log.read_text()
    assert not [word for word in ("the-password", "the-key", "the-token") if word in output]


COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1/?key=hidden"},
            "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL without '?', because /v1/traces is added at its end",
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp or none, not 'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/file"}, "OTEL_EXPORTER_OTLP_CERTIFICATE leads to '/no/file'"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "Authorization hidden"}, "OTEL_EXPORTER_OTLP_HEADERS is wrong: Header format"),
        ({"OTEL_TRACES_SAMPLER": "most"}, "OTEL_TRACES_SAMPLER is wrong: Couldn't recognize sampler most"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "OTEL_BSP_MAX_QUEUE_SIZE is wrong: max_queue_size must be"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT is wrong: Invalid timeout value 'soon'"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is wrong: "),
    ],
)
def test_a_variable_that_the_library_would_ignore_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name, value in {**COLLECTOR, **variables}.items():
        monkeypatch.setenv(name, value)
    logger = logging.getLogger("opentelemetry")
    monkeypatch.setattr(logger, "handlers", logger.handlers)
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    with pytest.raises(SettingsError) as caught, exported_traces(Env(os.environ), "w-1"):
        pass
    assert str(caught.value).startswith(expected)
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variable_for_traces_wins_over_the_one_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, own = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
    variables = {f"{shared}PROTOCOL": "grpc", f"{own}PROTOCOL": "http/protobuf"}
    variables |= {f"{shared}CERTIFICATE": "/no/file", f"{own}CERTIFICATE": __file__}
    logger = logging.getLogger("opentelemetry")
    monkeypatch.setattr(logger, "handlers", logger.handlers)
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(SettingsError, match="install swissbrain"),
        exported_traces(Env({**COLLECTOR, **variables}), "w"),
    ):
        pass


def test_no_exporter_is_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Env({**COLLECTOR, "OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with exported_traces(env, "w-1"):
        pass


@pytest.mark.parametrize(
    ("code", "endpoint", "expected"),
    [
        ("", "collector:4318", "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL that begins with http:// or https://"),
        (
            "sys.modules['opentelemetry.sdk.trace'] = None; ",
            "http://127.0.0.1:4318",
            "OTEL_EXPORTER_OTLP_ENDPOINT needs 'opentelemetry.sdk.trace': install swissbrain-server[worker,traces]",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, code: str, endpoint: str, expected: str) -> None:
    variables = {
        "REDIS_URL": "redis://127.0.0.1:1",
        "WORKER_ROOT": str(tmp_path),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
    }
    program = f"import sys; {code}from worker.__main__ import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr.strip()) == (2, f"swissbrain-worker: {expected}")
