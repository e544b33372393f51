"""Lines in the embedded metric format of CloudWatch, against the requests that a test has sent to an API process."""

import json
import signal
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from edge_api.metering import MAX_VALUES, SERVICE, UNITS
from edge_api.settings import ApiSettings
from infra.qstash_local.signing import sign
from infra.redis_tcp import RedisTcp
from infra.settings import Env, RedisRestSettings, SettingsError
from tests.edge.api_process import TOKEN, running
from tests.edge.stack import PLAN, SimulatedWorker
from tests.support.qstash import CURRENT_KEY, NEXT_KEY
from tests.support.redis import free_port

NAMESPACE = "SwissBrain/Test"
NUMBERS: Mapping[str, Any] = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_VALUES}
EMF: Mapping[str, Any] = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "additionalProperties": False,
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 1_700_000_000_000, "maximum": 9_999_999_999_999},
                "CloudWatchMetrics": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "minItems": 1,
                                    "maxItems": 30,
                                    "uniqueItems": True,
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
                                        "Unit": {"enum": ["Count", "Milliseconds", "Seconds"]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
"""Rules of the specification, with those units that are used here."""


def check_format(line: Mapping[str, Any]) -> None:
    """Assert that CloudWatch accepts a line, and that every member it refers to is there with the right type."""
    Draft202012Validator(EMF).validate(line)
    assert len(json.dumps(line)) < 256 * 1024
    for directive in line["_aws"]["CloudWatchMetrics"]:
        names = [metric["Name"] for metric in directive["Metrics"]]
        assert len(set(names)) == len(names)
        for metric in directive["Metrics"]:
            Draft202012Validator({"anyOf": [{"type": "number"}, NUMBERS]}).validate(line[metric["Name"]])
            assert metric["Unit"] == UNITS[metric["Name"]]
        for dimension in {name for names in directive["Dimensions"] for name in names}:
            assert isinstance(line[dimension], str)
            assert 1 <= len(line[dimension]) <= 1024


def sums(lines: list[dict[str, Any]], name: str) -> Counter[tuple[str, str]]:
    """Add up a metric by route and class of status."""
    total = Counter[tuple[str, str]]()
    for line in lines:
        total[line["Route"], line["Status"]] += line.get(name, 0)
    return +total


async def test_the_lines_agree_with_the_requests(redis: RedisTcp, rest_settings: RedisRestSettings) -> None:
    worker, port = SimulatedWorker(redis), free_port()
    url = f"http://127.0.0.1:{port}"
    changes = {
        "EDGE_EMF_NAMESPACE": NAMESPACE,
        "EDGE_PUBLIC_URL": url,
        "QSTASH_TOKEN": "token-of-qstash",
        "QSTASH_CURRENT_SIGNING_KEY": CURRENT_KEY,
        "QSTASH_NEXT_SIGNING_KEY": NEXT_KEY,
    }
    with running(rest_settings, port, **changes) as (process, _):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as http:
            runs = [(await http.post("/agent/runs", json=PLAN)).json()["run_id"] for _ in range(2)]
            batch = {"runs": [{**PLAN, "idempotency_key": f"k{n}"} for n in range(3)]}
            assert (await http.post("/agent/runs/batch", json=batch)).status_code == 200
            assert (await http.post("/agent/runs/batch", json=batch)).status_code == 200
            await http.get(f"/agent/runs/{runs[0]}")
            await http.get("/agent/runs/run_of_nobody")
            await http.get("/no/such/path-of-a-user")
            await http.post("/agent/runs", json={})
            await http.get("/health")
            await worker.complete()
            assert (await http.get(f"/agent/logs/{runs[0]}/stream")).text.count("event: end") == 1
            await worker.store.claim("lost", 1, lease_ms=1)
            signature = sign(CURRENT_KEY, f"{url}/internal/recover", b"")
            answer = await http.post("/internal/recover", headers={"Upstash-Signature": signature})
            assert answer.status_code == 200, answer.text
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        written = [json.loads(line) for line in process.stderr.read().splitlines()]
    lines = [line for line in written if line["action"] == "request.metrics"]
    for line in lines:
        check_format(line)
        assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == NAMESPACE
        assert line["Service"] == SERVICE
    assert sums(lines, "Requests") == {
        ("POST /agent/runs", "2xx"): 2,
        ("POST /agent/runs", "4xx"): 1,
        ("POST /agent/runs/batch", "2xx"): 2,
        ("GET /agent/runs/{run_id}", "2xx"): 1,
        ("GET /agent/runs/{run_id}", "4xx"): 1,
        ("unmatched", "4xx"): 1,
        ("GET /health", "2xx"): 1,
        ("GET /agent/logs/{run_id}/stream", "2xx"): 1,
        ("POST /internal/recover", "2xx"): 1,
    }
    # A repeated batch creates nothing.
    assert sums(lines, "RunsCreated") == {("POST /agent/runs", "2xx"): 2, ("POST /agent/runs/batch", "2xx"): 3}
    stream = ("GET /agent/logs/{run_id}/stream", "2xx")
    assert (sums(lines, "StreamsOpened"), sums(lines, "StreamsClosed")) == ({stream: 1}, {stream: 1})
    (tick,) = [line for line in lines if "QueueReady" in line]
    assert (tick["QueueReady"], tick["RunsRecovered"], tick["RunsFailed"]) == (4, 1, 0)
    used = sums(lines, "RedisCommands")
    assert used["POST /agent/runs", "2xx"] >= 2
    assert ("GET /health", "2xx") not in used
    for line in lines:
        assert len(line.get("RedisLatency", [])) <= line.get("RedisCommands", 0)
        if "Latency" in line:
            assert line["Latency"] > 0
    assert not any("of-a-user" in json.dumps(line) or runs[1] in json.dumps(line) for line in lines)


def test_no_line_is_written_without_a_namespace(rest_settings: RedisRestSettings) -> None:
    with running(rest_settings) as (process, url):
        assert httpx.get(f"{url}/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        assert "request.metrics" not in process.stderr.read()


@pytest.mark.parametrize("namespace", ["AWS/Lambda", "with space", "x" * 256, "ä"])
def test_a_namespace_that_cloudwatch_refuses_is_refused(namespace: str) -> None:
    with pytest.raises(SettingsError, match="EDGE_EMF_NAMESPACE"):
        ApiSettings.from_env(Env({"EDGE_EMF_NAMESPACE": namespace}))
