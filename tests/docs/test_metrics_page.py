"""The page on metrics against the registry of the worker and the lines of the API."""

import re

from edge_api.metering import SERVICE, UNITS
from infra import metrics
from tests.docs.pages import DOCS, codes_in, rows

PAGE = DOCS / "metrics.md"


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each metric of the worker on the page."""
    table = [cells for cells in rows(PAGE) if len(cells) == 4 and cells[0].startswith("`swissbrain_")]
    return {codes_in(cells[0])[0]: (cells[1], tuple(codes_in(cells[2]))) for cells in table}


def registered() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each instrument of the worker."""
    instruments = {name: each for name, each in vars(metrics).items() if hasattr(each, "_labelnames")}
    labelled = {name: each.instrument for name, each in vars(metrics).items() if isinstance(each, metrics.Labelled)}
    found = {}
    for each in {**instruments, **labelled}.values():
        end = "_total" if each._type == "counter" else ""
        found[f"{each._name}{end}"] = (each._type, each._labelnames)
    return found


def test_the_page_has_every_metric_with_its_type_and_labels_and_no_other() -> None:
    assert documented() == registered()


def test_every_metric_of_the_registry_is_an_instrument_of_the_module() -> None:
    names = {family.name for family in metrics.REGISTRY.collect() if family.name.startswith("swissbrain")}
    assert names == {name.removesuffix("_total") for name in registered()}


def test_names_follow_the_conventions() -> None:
    for name, (kind, _) in registered().items():
        assert re.fullmatch(r"swissbrain(_[a-z0-9]+)+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert kind != "histogram" or name.endswith("_seconds")


def test_the_page_names_every_value_of_a_bounded_label() -> None:
    cells = {codes_in(row[0])[0]: set(codes_in(row[3])) for row in rows(PAGE) if row[0].startswith("`swissbrain_")}
    assert cells["swissbrain_runs_ended_total"] - {"code", metrics.OTHER} == metrics.CODES
    assert cells["swissbrain_attempts_ended_total"] - {metrics.OTHER} == metrics.OUTCOMES


def test_the_page_has_every_metric_of_the_api_with_its_unit_and_no_other() -> None:
    units = {*UNITS.values()}
    table = [cells for cells in rows(PAGE) if len(cells) == 4 and cells[1] in units]
    assert {codes_in(cells[0])[0]: cells[1] for cells in table} == UNITS
    assert f"`{SERVICE}`" in PAGE.read_text()
