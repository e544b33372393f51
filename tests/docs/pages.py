"""Pages of the documentation, and the parts of them that tests compare with the code."""

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")),
    *sorted(DOCS.rglob("*.md")),
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ROW = re.compile(r"^ *\|(.+)\| *$", re.MULTILINE)


def name_of(page: Path) -> str:
    """Return the path of a page below the root, as the id of a test case."""
    return page.relative_to(ROOT).as_posix()


@cache
def text_of(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def blocks(page: Path, language: str | None = None) -> list[str]:
    """Return the code blocks of a page; with `language`, only blocks of this language."""
    return [code for kind, code in _FENCE.findall(page.read_text()) if language in {None, kind}]


def spans(page: Path) -> list[str]:
    """Return the inline code of a page."""
    return _SPAN.findall(text_of(page))


def code(page: Path) -> list[str]:
    """Return all code of a page: its inline code, and the lines of its blocks."""
    return [*spans(page), *(line for block in blocks(page) for line in block.splitlines())]


def rows(page: Path) -> list[list[str]]:
    """Return the cells of all table rows of a page."""
    return [[cell.strip() for cell in row.split("|")] for row in _ROW.findall(text_of(page))]


def codes_in(cell: str) -> list[str]:
    """Return the inline code of one table cell."""
    return _SPAN.findall(cell)


def documented_defaults() -> dict[str, str]:
    """Return the default of each variable in the page on configuration; the text may be `required`."""
    table = [cells for cells in rows(DOCS / "configuration.md") if len(cells) == 3]
    return {name: cells[1] for cells in table for name in codes_in(cells[0])}


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub builds them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(text_of(page))
    }


@cache
def files() -> frozenset[str]:
    """Return the paths of all files in the repository, and of their folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]
    return frozenset(each.as_posix() for path in paths for each in (path, *path.parents))
