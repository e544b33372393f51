"""Links, anchors, and paths of files that the documentation names."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, anchors, files, name_of, spans, text_of

FOLDERS = ("edge_api", "worker", "infra", "swissbrain", "tests", "docs", "examples", "bench", "distributions")
SOURCE = re.compile(r"[\w./-]*\w\.(?:py|lua|js|toml|md)")
MODULE = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:\.\w+){{2,}}")
"""Dotted names of two parts may be log actions, such as `worker.started`."""
ATTRIBUTES = set(re.findall(r'"(swissbrain(?:\.\w+)+)"', (DOCS.parent / "worker/tracing.py").read_text()))
"""Names of attributes of spans."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_table_has_a_head(page: Path) -> None:
    tables = re.findall(r"(?:^ *\|.*\n?)+", text_of(page), re.MULTILINE)
    torn = [table for table in tables if not re.match(r".*\n *\|[|\s:-]+\|\n?", table)]
    assert not torn, "an empty line before a row ends the table: the rows after it are shown as text"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_path_in_backticks_exists(page: Path) -> None:
    missing = [span for span in spans(page) if _is_path(span) and not _exists(span)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_module_in_backticks_exists(page: Path) -> None:
    missing = [
        span for span in spans(page) if MODULE.fullmatch(span) and not _is_module(span) and span not in ATTRIBUTES
    ]
    assert not missing


def test_the_index_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", (DOCS / "README.md").read_text()))
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"README.md"} <= linked


def _is_path(span: str) -> bool:
    return bool(SOURCE.fullmatch(span)) or (
        span.split("/", maxsplit=1)[0] in FOLDERS and "/" in span and " " not in span
    )


def _exists(span: str) -> bool:
    """Return whether a file or folder has this path, or a path that ends so: tables abbreviate paths."""
    path = span.rstrip("/")
    return path in files() or any(each.endswith(f"/{path}") for each in files())


def _is_module(span: str) -> bool:
    """Return whether a dotted name begins with a module below a package; the rest may be an attribute."""
    path = Path(span.replace(".", "/"))
    return any(f"{each}.py" in files() for each in (path, path.parent))
