"""`/openapi.json`: valid, complete, and in line with the responses."""

import re
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from starlette.routing import Route

from infra.contract.tools import TOOLS
from tests.edge.stack import PLAN, Edge, SimulatedWorker, create


async def describe(http: httpx.AsyncClient) -> dict[str, Any]:
    answer = await http.get("/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


async def test_the_document_is_valid_openapi(ada: httpx.AsyncClient) -> None:
    document = await describe(ada)
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert set(document["x-tools"]) == set(TOOLS)
    either: list[dict[str, list[str]]] = [{"bearer": []}, {"streamToken": []}]
    for path in ("/agent/logs/{run_id}", "/agent/logs/{run_id}/stream"):
        assert document["paths"][path]["get"]["security"] == either
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


async def test_the_document_describes_every_route_and_no_other(ada: httpx.AsyncClient, edge: Edge) -> None:
    document = await describe(ada)
    described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    routes = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in edge.app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == described


async def test_responses_match_their_described_schemas(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    document = await describe(ada)
    run_id = await create(ada, prompt="x")
    await worker.complete()
    requests: list[tuple[str, str, str, Any]] = [
        ("POST", "/agent/runs", "/agent/runs", PLAN),
        ("POST", "/agent/runs", "/agent/runs", {"prompt": 1}),
        ("POST", "/agent/execute", "/agent/execute", {"action": "create", **PLAN}),
        ("POST", "/agent/execute", "/agent/execute", {"action": "start", "run_id": run_id}),
        ("GET", "/agent/runs", "/agent/runs", None),
        ("GET", "/agent/runs?cursor=x", "/agent/runs", None),
        ("GET", f"/agent/runs/{run_id}", "/agent/runs/{run_id}", None),
        ("GET", "/agent/runs/none", "/agent/runs/{run_id}", None),
        ("POST", f"/agent/runs/{run_id}/start", "/agent/runs/{run_id}/start", None),
        ("GET", f"/agent/logs/{run_id}", "/agent/logs/{run_id}", None),
        ("POST", f"/agent/runs/{run_id}/stream-token", "/agent/runs/{run_id}/stream-token", None),
        ("POST", f"/agent/runs/{run_id}/stream-token", "/agent/runs/{run_id}/stream-token", {"expires_s": 0}),
        ("GET", f"/agent/runs/{run_id}/files", "/agent/runs/{run_id}/files", None),
        ("GET", "/agent/queue", "/agent/queue", None),
        ("GET", "/health", "/health", None),
        ("GET", "/ready", "/ready", None),
    ]
    for method, url, path, body in requests:
        answer = await ada.request(method, url, json=body)
        described = document["paths"][path][method.lower()]["responses"][str(answer.status_code)]
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = {**described["content"][media_type]["schema"], "components": document["components"]}
        jsonschema.validate(answer.json(), schema)
