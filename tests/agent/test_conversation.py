"""Conversations: for any turns, what models read is in order, bounded, and only ever grows."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contract.llm import ChatMessage, ToolSpec, estimated_tokens
from infra.contract.requests import UserMessage
from tests.agent.turns import MARKER, histories, inboxes, setup, turn
from worker.agent.compaction import LAST_BYTES, View, due
from worker.agent.conversation import messages, request_size
from worker.agent.entries import Purpose, Turn
from worker.agent.prompts import render
from worker.agent.rendering import NOT_EXECUTED

purposes: st.SearchStrategy[Purpose] = st.sampled_from(("turn", "plan", "summary"))
contexts = st.sampled_from((0, 700, 1500, 4000, 20_000, 1_000_000))


def check_order(made: Sequence[ChatMessage]) -> None:
    """Assert that the conversation begins well, and that calls and results follow each other one to one."""
    assert [message.role for message in made[:2]] == ["system", "user"]
    assert all(message.text or message.calls for message in made)
    assert made[-1].role in ("user", "tool")
    open_ids: list[str] = []
    for message in made:
        if message.role == "tool":
            assert message.call_id == open_ids.pop(0)
            continue
        assert open_ids == []
        assert not message.calls or message.role == "assistant"
        open_ids = [call.id for call in message.calls]
        assert len(set(open_ids)) == len(open_ids)
        assert all(len(each) == 9 and each.isalnum() for each in open_ids)
    assert open_ids == []


@settings(deadline=None, max_examples=20)
@given(histories(), contexts, purposes, inboxes)
def test_any_conversation_is_in_order_and_the_same_each_time(
    turns: list[Turn], context: int, purpose: Purpose, unread: list[UserMessage]
) -> None:
    made = messages(View.of(setup(context), turns), for_purpose=purpose, unread=unread)
    check_order(made)
    copies = msgspec.json.decode(msgspec.json.encode(turns), type=list[Turn])
    assert messages(View.of(setup(context), copies), for_purpose=purpose, unread=unread) == made


@settings(deadline=None, max_examples=20)
@given(histories(), contexts, purposes)
def test_a_conversation_fits_if_its_last_turn_does(turns: list[Turn], context: int, purpose: Purpose) -> None:
    made = messages(View.of(setup(context), turns), for_purpose=purpose)
    if estimated_tokens(request_size(made)) <= context:
        return
    # Nothing is left to be shortened: one turn, as short as possible, beside the task and the summary.
    view = View.of(setup(context), turns)
    assert len(view.shown) <= 1
    assert all(each.content.size == min(each.render(limit).size for limit in LAST_BYTES) for each in view.shown)
    assert context < 20_000


@settings(deadline=None, max_examples=20)
@given(histories(summaries=False))
def test_a_conversation_grows_at_its_end_alone(turns: list[Turn]) -> None:
    whole = messages(View.of(setup(10**9), turns), for_purpose="turn")
    for each in turns:
        before = messages(View.of(setup(10**9), turns[: each.n]), for_purpose="turn", unread=each.inbox)
        assert whole[: len(before)] == before
    for purpose in ("plan", "summary"):
        assert messages(View.of(setup(10**9), turns), for_purpose=purpose)[:-1] == whole


@settings(deadline=None, max_examples=20)
@given(histories(), contexts)
def test_a_summary_that_is_due_covers_shown_turns_and_keeps_the_last(turns: list[Turn], context: int) -> None:
    covers = due(View.of(setup(context), turns))
    if covers is not None:
        shown = [each.n for each in View.of(setup(context), turns).shown]
        assert shown[0] < covers <= turns[-1].n
        assert all(turn.exchange.purpose != "summary" for turn in turns[-4:])


def test_output_of_tools_is_fenced_and_words_of_the_platform_are_not() -> None:
    turns = [turn(0, "42"), turn(1, "Answer of anna: no", tool="ask_user")]
    made = messages(View.of(setup(), turns), for_purpose="turn")
    assert made[3].text == f'<{MARKER} tool="shell">\n42\n</{MARKER}>'
    assert made[5].text == "Answer of anna: no"


def test_a_reply_without_call_and_an_unusable_one_are_answered() -> None:
    spoken = msgspec.structs.replace(turn(0, ""), records=[])
    spoken = msgspec.structs.replace(spoken, exchange=msgspec.structs.replace(spoken.exchange, calls=[]))
    broken = msgspec.structs.replace(
        turn(1, "x"), exchange=msgspec.structs.replace(turn(1, "x").exchange, problem="it was cut")
    )
    made = messages(View.of(setup(), [spoken, broken]), for_purpose="turn")[2:]
    assert [(message.role, message.text) for message in made] == [
        ("assistant", "turn 0"),
        ("user", render("nudge")),
        ("user", render("problem", problem="it was cut")),
    ]


def test_calls_that_a_stopped_turn_did_not_reach_are_answered() -> None:
    last = msgspec.structs.replace(turn(0, "x"), records=[])
    assert messages(View.of(setup(), [last]), for_purpose="turn")[-1].text == NOT_EXECUTED
    done = msgspec.structs.replace(last, records=turn(0, "x").records)
    assert NOT_EXECUTED not in messages(View.of(setup(), [done]), for_purpose="turn")[-1].text


def test_the_third_identical_call_is_told_so() -> None:
    turns = [turn(n, "same", fingerprint="f") for n in range(4)]
    told = [message.text for message in messages(View.of(setup(), turns), for_purpose="turn") if message.role == "tool"]
    assert ["in a row" in text for text in told] == [False, False, True, True]
    assert told[3].endswith(render("repeats", count="4"))


def test_a_summary_replaces_what_it_covers() -> None:
    turns = [turn(n, f"result {n}") for n in range(4)]
    said = msgspec.structs.replace(
        turn(4, "All is well.", purpose="summary", covers=3),
        inbox=[UserMessage(text="hurry", by="anna", at_ms=0)],
    )
    made = messages(View.of(setup(), [*turns, said, turn(5, "result 5")]), for_purpose="turn")
    texts = [message.text for message in made]
    assert [message.role for message in made[2:]] == ["user", "assistant", "tool", "user", "assistant", "tool"]
    assert texts[2] == render("earlier", summary="All is well.", plan="")
    assert "result 3" in texts[4]
    assert texts[5] == "Message from anna:\n\nhurry"
    assert "result 5" in texts[7]


def test_a_plan_outlives_the_summary_that_covers_it() -> None:
    steps = [{"goal": "read the data"}, {"goal": "write it up", "tools": ["shell"]}]
    planned = turn(0, "ok", tool="plan", result={"steps": steps})
    done = turn(1, "ok", tool="step_done", result={"outcome": "9 rows"})
    summary = turn(2, "All is well.", purpose="summary", covers=2)
    made = messages(View.of(setup(), [planned, done, summary]), for_purpose="turn")
    assert [message.role for message in made] == ["system", "user", "user"]
    assert made[2].text.endswith("1. read the data – done: 9 rows\n2. write it up")


def test_a_failed_summary_replaces_nothing() -> None:
    turns = [turn(0, "result 0"), turn(1, "", purpose="summary", covers=1)]
    assert messages(View.of(setup(), turns), for_purpose="turn") == messages(
        View.of(setup(), turns[:1]), for_purpose="turn"
    )


def test_a_summary_is_due_above_three_quarters_and_not_again_at_once() -> None:
    turns = [turn(n, "x" * 3000) for n in range(20)]
    counts = [n for n in range(1, 21) if due(View.of(setup(20_000), turns[:n])) is not None]
    assert counts[0] * 3000 == pytest.approx(0.75 * 60_000, abs=6000)
    covers = due(View.of(setup(20_000), turns[: counts[0]]))
    assert covers is not None
    assert 3 <= counts[0] - covers <= 5  # a quarter of the context is kept
    summary = turn(counts[0], "short", purpose="summary", covers=covers)
    assert due(View.of(setup(20_000), [*turns[: counts[0]], summary])) is None
    assert due(View.of(setup(20_000), [])) is None


def test_old_outputs_are_shortened_once_the_conversation_does_not_fit_and_stay_so() -> None:
    turns = [turn(n, f"begin {n} " + "x" * 10_000) for n in range(30)]
    kept = 0
    for count in range(1, 31):
        made = messages(View.of(setup(20_000), turns[:count]), for_purpose="turn")
        assert estimated_tokens(request_size(made)) <= 20_000
        following = messages(View.of(setup(20_000), turns[: count + 1]), for_purpose="turn")
        kept += following[: len(made)] == made
        assert len(made) == 2 + 2 * count
        assert f"begin {count - 1} " + "x" * 9000 in made[-1].text
    assert kept > 15  # the cache of a provider is void only from time to time


def test_long_arguments_are_cut_by_name() -> None:
    long = msgspec.json.encode({"path": "a.py", "content": "x" * 5000}).decode()
    first = turn(0, "ok")
    call = msgspec.structs.replace(first.exchange.calls[0], arguments=long)
    first = msgspec.structs.replace(first, exchange=msgspec.structs.replace(first.exchange, calls=[call]))
    made = messages(View.of(setup(1500), [first, turn(1, "ok")]), for_purpose="turn")
    shown = msgspec.json.decode(made[2].calls[0].arguments)
    assert shown["path"] == "a.py"
    assert "bytes are left out" in shown["content"]


def test_tools_count_into_the_size_of_a_request() -> None:
    tool = ToolSpec(name="t", description="d" * 100, parameters={"type": "object"})
    made = messages(View.of(setup(), []), for_purpose="plan")
    assert request_size(made, [tool]) > request_size(made) + 100
