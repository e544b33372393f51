"""Limits: totals follow from the turns alone, and no limit is exceeded by a model that obeys."""

import itertools
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contract.agent import MAX_TURNS, Limits
from infra.contract.llm import ModelChoice, Usage
from infra.contract.requests import UserMessage
from tests.agent.turns import PRICED, histories, turn
from worker.agent.entries import CallRecord, Turn
from worker.agent.limits import (
    LimitReached,
    Totals,
    call_reached,
    effective,
    near,
    output_allowance,
    reached,
    repetitions,
    worst_case,
)

numbers = st.none() | st.integers(1, 20_000)
any_limits = st.builds(
    Limits,
    turns=st.none() | st.integers(1, 9),
    tool_calls=st.none() | st.integers(1, 9),
    input_tokens=numbers,
    output_tokens=numbers,
    cost=st.none() | st.floats(0.001, 0.1),
    wall_s=st.none() | st.floats(0.1, 60),
    repeats=st.none() | st.integers(2, 5),
)


@settings(deadline=None, max_examples=20)
@given(histories(), st.integers(0, 10))
def test_the_totals_of_a_run_are_those_of_its_parts(turns: list[Turn], at: int) -> None:
    first, second, both = Totals.of(turns[:at]), Totals.of(turns[at:]), Totals.of(turns)
    assert both.usage == first.usage + second.usage
    for name in ("turns", "tool_calls", "wall_ms"):
        assert getattr(both, name) == getattr(first, name) + getattr(second, name)
    assert both.repeats >= max(first.repeats, second.repeats)
    stored = msgspec.json.decode(msgspec.json.encode(turns), type=list[Turn])
    assert Totals.of(stored) == both


@settings(deadline=None, max_examples=20)
@given(histories(), any_limits)
def test_a_limit_stays_reached_and_is_near_once(turns: list[Turn], limits: Limits) -> None:
    totals = [Totals.of(turns[:count]) for count in range(len(turns) + 1)]
    for check in (reached, call_reached):
        ended = [check(limits, each) is not None for each in totals]
        assert ended == sorted(ended)
    events = [event.limit for before, after in itertools.pairwise(totals) for event in near(limits, before, after)]
    assert len(events) == len(set(events))


@settings(deadline=None, max_examples=20)
@given(any_limits, st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 1)), max_size=30), st.integers(1, 8192))
def test_a_model_that_obeys_exceeds_no_limit(
    limits: Limits, replies: list[tuple[int, float]], output_tokens: int
) -> None:
    totals = Totals()
    for input_tokens, part in replies:
        allowance = output_allowance(limits, totals, output_tokens, models=[PRICED], input_tokens=input_tokens)
        assert 1 <= allowance <= output_tokens
        worst = worst_case([PRICED], input_tokens, allowance)
        if reached(limits, totals, worst):
            break
        written = int(allowance * part)
        cost = PRICED.cost_micros(input_tokens=input_tokens, output_tokens=written)
        usage = Usage(input=input_tokens, output=written, cost_micros=cost)
        totals = Totals(turns=totals.turns + 1, usage=totals.usage + usage)
    for name, used in totals.used().items():
        assert getattr(limits, name) is None or used <= getattr(limits, name)


def test_the_message_says_what_was_used_and_how_to_go_on() -> None:
    found = reached(Limits(turns=20), Totals(turns=20))
    assert isinstance(found, LimitReached)
    assert (found.code, found.used, found.allowed) == ("limit_turns", 20, 20)
    assert found.message == (
        "the run has used 20 of 20 exchanges with models (limit `turns`). To go on from here, retry the run with a "
        'higher limit: \'swissbrain retry RUN --limit turns=40\', or {"limits": {"turns": 40}} to the API'
    )
    tiny = reached(Limits(output_tokens=10), Totals(usage=Usage(output=4)), Usage(output=256))
    assert tiny is not None
    assert "--limit output_tokens=260" in tiny.message
    most = reached(Limits(turns=MAX_TURNS), Totals(turns=MAX_TURNS))
    assert most is not None
    assert most.message.endswith("No run may use more; its files and its log are kept")


def test_the_worst_case_of_the_next_exchange_counts() -> None:
    limits, totals = Limits(input_tokens=10_000, output_tokens=10_000, cost=1.0), Totals(usage=Usage(input=9000))
    assert reached(limits, totals, Usage(input=1000)) is None
    found = reached(limits, totals, Usage(input=1001))
    assert found is not None
    assert found.name == "input_tokens"
    assert "has used 9,000 of 10,000 input tokens" in found.message
    assert "may need 1,001" in found.message
    dear = reached(limits, Totals(usage=Usage(cost_micros=900_000)), worst_case([PRICED], 10, 10_000))
    assert dear is not None
    assert dear.code == "limit_cost"
    assert "has used 0.9 of 1" in dear.message


def test_a_reply_is_shortened_to_what_the_limits_leave() -> None:
    totals = Totals(usage=Usage(output=9000, cost_micros=985_000))
    assert output_allowance(Limits(), totals, 4096) == 4096
    assert output_allowance(Limits(output_tokens=10_000), totals, 4096) == 1000
    assert output_allowance(Limits(output_tokens=9010), totals, 4096) == 256
    by_cost = output_allowance(Limits(cost=1.0), totals, 4096, models=[PRICED], input_tokens=1000)
    assert 256 <= by_cost <= 800  # 0.012 is left for output, at 15 per million tokens


def test_a_limit_of_cost_needs_prices() -> None:
    free = ModelChoice(name="local")
    found = reached(Limits(cost=1.0), Totals(), worst_case([PRICED, free], 10, 10))
    assert found is not None
    assert "LLM_PRICES" in found.message
    assert reached(Limits(), Totals(), worst_case([free], 10, 10)) is None


def test_all_allowed_calls_may_be_used_before_a_further_one_ends_the_run() -> None:
    totals = Totals.of([turn(0, "a"), turn(1, "b"), turn(2, "done", tool="step_done")])
    assert totals.tool_calls == 2
    assert reached(Limits(tool_calls=2), totals) is None
    found = call_reached(Limits(tool_calls=2), totals)
    assert found is not None
    assert found.code == "limit_tool_calls"
    assert call_reached(Limits(tool_calls=3), totals) is None


def test_the_nearness_of_a_limit_is_told_once_at_four_fifths() -> None:
    limits = Limits(turns=10, repeats=5)
    steps = [Totals(turns=n) for n in range(11)]
    told = [near(limits, before, after) for before, after in itertools.pairwise(steps)]
    assert [[(event.used, event.allowed) for event in events] for events in told] == [[]] * 7 + [[(8, 10)]] + [[]] * 2


def record(fingerprint: str, status: Literal["succeeded", "refused"] = "succeeded") -> CallRecord:
    return CallRecord(tool="shell", status=status, text="", step=0, started_ms=0, fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("records", "count"),
    [
        ([], 0),
        ([record("a")], 1),
        ([record("a"), record("a"), record("a")], 3),
        ([record("a"), record("b"), record("a")], 1),
        ([record("a"), record("", "refused"), record("a")], 2),
        ([record("a"), record(""), record("a")], 1),
        ([record("a"), record("")], 0),
    ],
)
def test_only_identical_calls_in_a_row_are_repeats(records: list[CallRecord], count: int) -> None:
    made = msgspec.structs.replace(turn(0, ""), records=records)
    assert [found for _, _, _, found in repetitions([made])][-1:] == [count][: len(records)]


def test_a_message_of_a_user_begins_a_new_count_and_the_longest_one_ends_the_run() -> None:
    turns = [turn(n, "same", fingerprint="f") for n in range(5)]
    ended = reached(Limits(repeats=5), Totals.of(turns))
    assert ended is not None
    assert ended.code == "limit_repeats"
    told = msgspec.structs.replace(turns[4], inbox=[UserMessage(text="again", by="anna", at_ms=0)])
    assert [count for _, _, _, count in repetitions([*turns[:4], told])] == [1, 2, 3, 4, 1]
    assert Totals.of([*turns[:4], told]).repeats == 4


def test_a_run_gets_the_limits_it_asks_for_below_those_of_the_configuration() -> None:
    caps = Limits(turns=50, wall_s=60.0, repeats=5)
    assert effective(Limits(), caps) == caps
    assert effective(Limits(turns=100, wall_s=10, cost=2.0), caps) == Limits(turns=50, wall_s=10, cost=2.0, repeats=5)
