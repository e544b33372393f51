"""Event data of any size fits into MAX_EVENT_BYTES, and split texts keep every character."""

import operator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, inspect

from infra.contract.event_sizing import split, truncate, truncate_text
from infra.contract.events import (
    EVENTS,
    Message,
    PlanCreated,
    PlannedStep,
    RunWaiting,
    Splittable,
    ToolFinished,
    ToolOutput,
    ToolStarted,
    Truncated,
)
from infra.contract.log import Event
from infra.contract.runs import MAX_MS
from tests.support import events as support

CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\n\0\x1f\x7f😀é\u2028')
SHORT = st.text(CHARACTERS, max_size=20)
TEXT = st.builds(operator.mul, SHORT, st.sampled_from([1, 1, 20, 500, 3000]))
LEAF = TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
NESTED = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
LONG_LIST = st.builds(operator.mul, st.lists(NESTED, max_size=2), st.sampled_from([1, 30]))
ARGS = st.dictionaries(TEXT, NESTED | LONG_LIST, max_size=5)


SCALARS: dict[type[inspect.Type], st.SearchStrategy[Any]] = {
    inspect.StrType: TEXT,
    inspect.IntType: st.integers(-(2**63), 2**64 - 1),
    inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    inspect.BoolType: st.booleans(),
    inspect.NoneType: st.none(),
    inspect.DictType: ARGS,
}


def values(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Build a strategy for all values of a type."""
    match info:
        case inspect.Metadata(type=inner):
            return values(inner)
        case inspect.UnionType(types=types):
            return st.one_of([values(inner) for inner in types])
        case inspect.LiteralType(values=allowed):
            return st.sampled_from(allowed)
        case inspect.ListType(item_type=inner) | inspect.CollectionType(item_type=inner):
            return st.builds(operator.mul, st.lists(values(inner), max_size=5), st.sampled_from([1, 1, 40]))
        case inspect.StructType(cls=kind, fields=fields):
            return st.builds(kind, **{field.name: field_values(field) for field in fields})
    return SCALARS[type(info)]


def field_values(field: inspect.Field) -> st.SearchStrategy[Any]:
    """Build a strategy for all values of a field, its default among them."""
    strategy = values(field.type)
    if field.required:
        return strategy
    return st.just(UNSET if field.default is msgspec.NODEFAULT else field.default) | strategy


def checked_split(data: Truncated | Splittable) -> list[dict[str, Any]]:
    """Split the data into events and check each; the other fields have their longest values, to be at the bound."""
    parts = split(data)
    for part in parts:
        support.check(Event(seq=MAX_MS, ts=MAX_MS, type=data.TYPE, step=MAX_MS, data=part))
    return parts


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS.keys())
@given(draw=st.data())
def test_no_event_is_too_long_whatever_its_data(kind: type[Truncated] | type[Splittable], draw: st.DataObject) -> None:
    data = draw.draw(values(inspect.type_info(kind)))

    parts = checked_split(data)

    if not isinstance(data, Splittable):
        assert len(parts) == 1
        return
    joined = [item for part in parts for item in part[data.SPLIT_FIELD]]
    if data.SPLIT_FIELD == "text":
        assert "".join(joined) == getattr(data, "text")  # noqa: B009
    else:
        assert [step["name"] for step in joined] == [truncate_text(step.name, 200) for step in getattr(data, "steps")]  # noqa: B009

    assert [part.get("more", False) for part in parts] == [True] * (len(parts) - 1) + [data.more]

    repeated = [
        {name: part[name] for name in part if name not in {data.SPLIT_FIELD, "more", "first", "replaces_line"}}
        for part in parts
    ]
    assert all(fields == repeated[0] for fields in repeated)
    replacing = [part.get("replaces_line", False) for part in parts]
    assert replacing == [getattr(data, "replaces_line", False)] + [False] * (len(parts) - 1)


@given(TEXT)
def test_short_data_is_neither_truncated_nor_split(text: str) -> None:
    data = ToolOutput(stream="stdout", text=text[:300])
    assert checked_split(data) == [msgspec.to_builtins(data)] == [{"stream": "stdout", "text": text[:300]}]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("", 1),
        ("x" * 10_000, 1),
        ("x" * 15_000, 1),
        ("x" * 16_000, 2),
        ("\n" * 10_000, 2),
        ("\0" * 10_000, 4),
        ("😀" * 10_000, 4),
        ("x" * 1_000_000, 64),
    ],
)
def test_a_text_takes_as_many_events_as_it_needs(text: str, events: int) -> None:
    assert len(checked_split(Message(text=text))) == events


def test_a_text_that_is_continued_keeps_its_flag_when_it_is_split() -> None:
    parts = checked_split(ToolOutput(stream="stderr", text="x" * 20_000, more=True))
    assert [(part["stream"], part["more"]) for part in parts] == [("stderr", True), ("stderr", True)]


def test_a_long_plan_is_split_into_several_events() -> None:
    steps = [PlannedStep(name=f"step {number} " + "é" * 300, tool="shell") for number in range(200)]

    parts = checked_split(PlanCreated(steps=steps, first=3))

    assert len(parts) > 1

    names = [step["name"] for part in parts for step in part["steps"]]
    assert names == [truncate_text(step.name, 200) for step in steps]
    assert [steps[part["first"] - 3].name[:10] for part in parts] == [part["steps"][0]["name"][:10] for part in parts]
    assert "first" not in checked_split(PlanCreated(steps=steps))[0]


def test_a_long_field_is_truncated_so_that_the_other_fields_fit() -> None:
    (data,) = checked_split(
        ToolFinished(
            tool="x",
            status="failed",
            duration_ms=1,
            code="exit_code",
            message="\0" * 5000,
            kept=[".run/step-0.stdout", ".run/step-0.stderr"],
        )
    )
    assert data["message"] == "\0" * 1999 + "…"
    assert data["kept"] == [".run/step-0.stdout", ".run/step-0.stderr"]


def test_a_question_may_be_longer_than_an_error() -> None:
    whole, long = RunWaiting(question="x" * 8000, requests=[]), RunWaiting(question="x" * 8001, requests=[])
    assert checked_split(whole) == [{"question": "x" * 8000, "requests": []}]
    assert checked_split(long) == [{"question": "x" * 7999 + "…", "requests": []}]


def test_long_strings_in_arguments_are_truncated() -> None:
    args = {"text": "x" * 201, "short": "y", "n": 1, "in": {"list": ["z" * 300, None]}}
    assert truncate(ToolStarted(tool="t", args=args))["args"] == {
        "text": "x" * 199 + "…",
        "short": "y",
        "n": 1,
        "in": {"list": ["z" * 199 + "…", None]},
    }


def test_long_lists_in_arguments_are_truncated() -> None:
    items = truncate(ToolStarted(tool="t", args={"list": list(range(100_000))}))["args"]["list"]
    assert items[:3] == [0, 1, 2]
    assert items[-1] == "…"


def test_deeply_nested_arguments_are_truncated() -> None:
    nested: Any = "deep"
    for _ in range(100):
        nested = [nested]
    assert "deep" not in str(truncate(ToolStarted(tool="t", args={"a": nested, "b": "x" * 200})))


def test_huge_integers_in_arguments_count_towards_the_bound() -> None:
    args = truncate(ToolStarted(tool="t", args={str(number): 10**4000 for number in range(10)}))["args"]
    assert args["0"] == 10**4000
    assert args["9"] == "…"
