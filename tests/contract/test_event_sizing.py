"""However long what is logged may be, no event is too long, and no text loses a character."""

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
MANY = st.builds(operator.mul, st.lists(NESTED, max_size=2), st.sampled_from([1, 30]))
ARGS = st.dictionaries(TEXT, NESTED | MANY, max_size=5)


PLAIN: dict[type[inspect.Type], st.SearchStrategy[Any]] = {
    inspect.StrType: TEXT,
    inspect.IntType: st.integers(-(2**63), 2**64 - 1),
    inspect.BoolType: st.booleans(),
    inspect.NoneType: st.none(),
    inspect.DictType: ARGS,
}


def values(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value that a type allows."""
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
            return st.builds(kind, **{field.name: given_or_not(field) for field in fields})
    return PLAIN[type(info)]


def given_or_not(field: inspect.Field) -> st.SearchStrategy[Any]:
    """Any value of a field."""
    found = values(field.type)
    if field.required:
        return found
    return st.just(UNSET if field.default is msgspec.NODEFAULT else field.default) | found


def told(data: Truncated | Splittable) -> list[dict[str, Any]]:
    """The data of the events that tell it, each of them checked where it is longest."""
    found = split(data)
    for part in found:
        support.check(Event(seq=MAX_MS, ts=MAX_MS, type=data.TYPE, step=MAX_MS, data=part))
    return found


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS.keys())
@given(draw=st.data())
def test_no_event_is_too_long_whatever_is_in_it(kind: type[Truncated] | type[Splittable], draw: st.DataObject) -> None:
    data = draw.draw(values(inspect.type_info(kind)))
    found = told(data)
    if not isinstance(data, Splittable):
        assert len(found) == 1
        return
    joined = [item for part in found for item in part[data.SPLIT_FIELD]]
    if data.SPLIT_FIELD == "text":
        assert "".join(joined) == getattr(data, "text")  # noqa: B009
    else:
        assert [step["name"] for step in joined] == [truncate_text(step.name, 200) for step in getattr(data, "steps")]  # noqa: B009
    assert [part.get("more", False) for part in found] == [True] * (len(found) - 1) + [data.more]
    beside = [{name: part[name] for name in part if name not in {data.SPLIT_FIELD, "more", "first"}} for part in found]
    assert all(fields == beside[0] for fields in beside)


@given(TEXT)
def test_what_is_short_is_told_as_it_is(text: str) -> None:
    data = ToolOutput(stream="stdout", text=text[:300])
    assert told(data) == [msgspec.to_builtins(data)] == [{"stream": "stdout", "text": text[:300]}]


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
    assert len(told(Message(text=text))) == events


def test_the_last_part_of_a_part_goes_on_too() -> None:
    found = told(ToolOutput(stream="stderr", text="x" * 20_000, more=True))
    assert [(part["stream"], part["more"]) for part in found] == [("stderr", True), ("stderr", True)]


def test_a_long_plan_is_told_in_several_events() -> None:
    steps = [PlannedStep(name=f"step {number} " + "é" * 300, tool="shell") for number in range(200)]
    found = told(PlanCreated(steps=steps, first=3))
    assert len(found) > 1
    names = [step["name"] for part in found for step in part["steps"]]
    assert names == [truncate_text(step.name, 200) for step in steps]
    assert [steps[part["first"] - 3].name[:10] for part in found] == [part["steps"][0]["name"][:10] for part in found]
    assert "first" not in told(PlanCreated(steps=steps))[0]


def test_a_field_that_is_long_leaves_room_for_the_others() -> None:
    (found,) = told(
        ToolFinished(
            tool="x",
            status="failed",
            duration_ms=1,
            code="exit_code",
            message="\0" * 5000,
            kept=[".run/step-0.stdout", ".run/step-0.stderr"],
        )
    )
    assert found["message"] == "\0" * 1999 + "…"
    assert found["kept"] == [".run/step-0.stdout", ".run/step-0.stderr"]


def test_a_question_may_be_longer_than_an_error() -> None:
    assert told(RunWaiting(question="x" * 8000)) == [{"question": "x" * 8000}]
    assert told(RunWaiting(question="x" * 8001)) == [{"question": "x" * 7999 + "…"}]


def test_arguments_are_cut_where_they_are_long() -> None:
    args = {"text": "x" * 201, "short": "y", "n": 1, "in": {"list": ["z" * 300, None]}}
    assert truncate(ToolStarted(tool="t", args=args))["args"] == {
        "text": "x" * 199 + "…",
        "short": "y",
        "n": 1,
        "in": {"list": ["z" * 199 + "…", None]},
    }
    many = truncate(ToolStarted(tool="t", args={"list": list(range(100_000))}))["args"]["list"]
    assert many[:3] == [0, 1, 2]
    assert many[-1] == "…"
    nested: Any = "deep"
    for _ in range(100):
        nested = [nested]
    assert "deep" not in str(truncate(ToolStarted(tool="t", args={"a": nested, "b": "x" * 200})))
    huge = truncate(ToolStarted(tool="t", args={str(number): 10**4000 for number in range(10)}))["args"]
    assert huge["0"] == 10**4000
    assert huge["9"] == "…"
