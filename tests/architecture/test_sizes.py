"""Size limits of the product's files and functions. Exceptions are listed in pyproject.toml."""

import ast
import tomllib

from tests.architecture.sources import ROOT, product_files

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60


def too_long() -> set[str]:
    """Return the files, and the functions as FILE:NAME, that exceed the limits."""
    found = set()
    for path in product_files():
        text = path.read_text()
        name = str(path.relative_to(ROOT))
        if len(text.splitlines()) > MAX_FILE_LINES:
            found.add(name)
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            assert node.end_lineno
            if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                found.add(f"{name}:{node.name}")
    return found


def test_only_listed_files_and_functions_exceed_the_size_limits() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # Equality, not inclusion: an entry that is no longer needed must be removed from the list.
    assert too_long() == set(settings["tool"]["swissbrain"]["size-exceptions"])
