"""A class name stands for one thing: no two modules of the product define classes of the same name."""

import ast
from collections import defaultdict

from tests.architecture.sources import ROOT, product_files

PORTS = {"Workspaces"}
"""Ports that are named like the class in infra that implements them."""
API_OBJECTS = {
    "AttemptList",
    "File",
    "FileList",
    "Gap",
    "LogPage",
    "PlanStep",
    "Problem",
    "Run",
    "RunState",
    "RunSummary",
    "StreamToken",
}
"""Objects of the HTTP API. The client defines them again, because it imports nothing from the servers."""
STILL_DOUBLE: set[str] = {"Child", "Ports"}
"""Names to be qualified. This set may only shrink."""


def classes() -> dict[str, set[str]]:
    """Return the files that define each class name, nested classes included."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(str(path.relative_to(ROOT)))
    return found


def test_each_class_name_is_defined_in_one_module() -> None:
    allowed = PORTS | API_OBJECTS | STILL_DOUBLE
    repeated = {name: sorted(files) for name, files in classes().items() if len(files) > 1 and name not in allowed}
    assert not repeated, "qualify one of each by its subject"


def test_every_listed_exception_is_defined_in_several_modules() -> None:
    found = classes()
    unneeded = {name for name in PORTS | API_OBJECTS | STILL_DOUBLE if len(found.get(name, set())) < 2}
    assert not unneeded, "remove these names from the lists of exceptions"
