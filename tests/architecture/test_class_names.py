"""A class name stands for one thing: no two modules of the product define classes of the same name."""

import ast
from collections import defaultdict

from tests.architecture.sources import ROOT, product_files

API_OBJECTS = {
    "AgentOptions",
    "ApprovalRule",
    "Attempt",
    "AttemptList",
    "BatchResult",
    "BatchResults",
    "CallOutcome",
    "DeliveryAttempt",
    "ResentEvent",
    "WebhookDeliveries",
    "WebhookDelivery",
    "WebhookSecret",
    "DayUsage",
    "Event",
    "File",
    "FileLink",
    "FileList",
    "ForkOf",
    "Gap",
    "Identity",
    "InputFile",
    "LastTick",
    "Limits",
    "LogPage",
    "ModelUsage",
    "OpenRequest",
    "PlanStep",
    "Problem",
    "QueueDepths",
    "QueuePlace",
    "Run",
    "RunError",
    "RunState",
    "RunSummary",
    "Schedule",
    "ScheduleList",
    "ScheduleSummary",
    "Skipped",
    "Step",
    "StepList",
    "StepRecord",
    "StreamToken",
    "TickResult",
    "UploadTarget",
    "UsageReport",
    "Waiting",
}
"""Objects of the HTTP API. The client defines them again, because it imports nothing from the servers."""


def classes() -> dict[str, set[str]]:
    """Return the files that define each class name, nested classes included."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(str(path.relative_to(ROOT)))
    return found


def test_each_class_name_is_defined_in_one_module() -> None:
    repeated = {name: sorted(files) for name, files in classes().items() if len(files) > 1 and name not in API_OBJECTS}
    assert not repeated, "qualify one of each by its subject"


def test_every_listed_api_object_is_defined_in_several_modules() -> None:
    found = classes()
    unneeded = {name for name in API_OBJECTS if len(found.get(name, set())) < 2}
    assert not unneeded, "remove these names from API_OBJECTS"
