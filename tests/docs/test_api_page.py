"""Routes, problems, error codes and events that the documentation names."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.routing import Route

from edge_api.app import create_app
from edge_api.http.errors import TYPE_PREFIX, EdgeError, describe
from edge_api.settings import SCOPES, ApiSettings
from infra.contract.errors import ContractError
from infra.contract.events import EVENTS
from infra.contract.states import Status
from tests.docs.log_calls import log_actions
from tests.docs.pages import DOCS, PAGES, ROOT, code, codes_in, files, name_of, rows, spans, text_of
from worker.toolkit.base import ToolContext

API = DOCS / "api.md"
ROUTE = re.compile(
    r"\b(GET|POST|PUT|PATCH|DELETE) (/(?:agent|internal|webhooks|health|ready|openapi|events)[\w./{}-]*)"
)
STATUS = re.compile(r"[45]\d\d")
DOTTED = re.compile(r"[a-z_]+\.[a-z_]+")


def routes() -> set[tuple[str, str]]:
    """Return method and path of each route of the API."""
    nothing: Any = SimpleNamespace(logs=None)
    app = create_app(nothing, nothing, nothing, nothing, ApiSettings())
    found = [route for route in app.routes if isinstance(route, Route)]
    every = {(method, re.sub(r":\w+}", "}", route.path)) for route in found for method in route.methods or ()}
    return {(method, path) for method, path in every if method != "HEAD"}


def test_the_page_on_the_api_has_every_route() -> None:
    assert {route for span in spans(API) for route in ROUTE.findall(span)} == routes()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_route_that_a_page_names_exists(page: Path) -> None:
    assert {route for line in code(page) for route in ROUTE.findall(line)} <= routes()


def problems() -> set[str]:
    """Return the slugs of all problems with which the API can answer."""
    slugs = {describe(RuntimeError())[0].type}
    kinds: list[type[Exception]] = [EdgeError, ContractError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        error: Any = kind.__new__(kind)
        error.status = error.scope = ""
        slugs.add(describe(error)[0].type)
    return {slug.removeprefix(TYPE_PREFIX) for slug in slugs}


def slugs_in_tables(page: Path) -> set[str]:
    """Return the problems in the tables of a page: their second column, after the HTTP status."""
    slugs = {slug for row in rows(page) if STATUS.fullmatch(row[0]) for slug in codes_in(row[1])}
    return {slug for slug in slugs if re.fullmatch(r"[a-z-]+", slug)}


def test_the_table_of_problems_is_complete() -> None:
    assert slugs_in_tables(API) == problems()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_problem_that_a_page_names_exists(page: Path) -> None:
    prefixed = set(re.findall(rf"{TYPE_PREFIX}([a-z-]+)", page.read_text()))
    assert slugs_in_tables(page) | prefixed <= problems()


def error_codes() -> set[str]:
    """Return the codes with which runs fail, as the source of the worker, its tools and the scripts spells them."""
    sources = [path for path in files() if path.startswith(("worker/", "infra/contract/"))]
    text = "\n".join((ROOT / path).read_text() for path in sources if path.endswith((".py", ".lua")))
    patterns = (
        r'RunError\(\s*code="(\w+)"',
        r'code = "(\w+)" if .* else "\w+"',
        r'(?:Tool|Action)Failed\(\s*"(\w+)"',
        r'"code":"(\w+)"',
        r'^    \w+: "(\w+)",$',  # the tables of codes in worker/run/tool_failures.py and worker/verdict.py
    )
    return {name for pattern in patterns for name in re.findall(pattern, text, re.MULTILINE)}


def test_the_table_of_error_codes_is_complete() -> None:
    _, _, section = text_of(API).partition("### Error codes of a run")
    assert set(re.findall(r"^\| `(\w+)` \|", section.split("\n## ")[0], re.MULTILINE)) == error_codes()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_event_and_log_action_that_a_page_names_exists(page: Path) -> None:
    known = {*EVENTS, *log_actions()}
    areas = {name.split(".")[0] for name in known if "." in name}
    named = {span for span in spans(page) if DOTTED.fullmatch(span) and span.split(".")[0] in areas}
    former = {name for row in rows(page) for name in codes_in(row[0])} if page.name == "CHANGELOG.md" else set()
    assert {name for name in named - former if not _is_file(name) and not _is_of_tool_context(name)} <= known


def _is_file(span: str) -> bool:
    return span.endswith(".sh") or any(path.endswith(f"/{span}") for path in files())


def _is_of_tool_context(span: str) -> bool:
    return span.startswith("context.") and hasattr(ToolContext, span.removeprefix("context."))


def test_the_page_on_the_api_names_every_status_and_scope() -> None:
    text = text_of(API)
    assert f"`{' '.join(Status)}`" in text
    assert {scope for scope in SCOPES if f"`{scope}`" in text} == SCOPES
