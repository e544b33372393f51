"""Pure functions of the contract: states, keys, paths, tool arguments, models, codec, script headers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contract.agent import ApprovalRule
from infra.contract.errors import InvalidInput
from infra.contract.keys import Keys
from infra.contract.log import NewEvent
from infra.contract.paths import workspace_path, writable_path
from infra.contract.redis import Argument, Reply, Script
from infra.contract.redis_store import codec, scripts
from infra.contract.runs import MAX_PLAN_STEPS, PlanStep, RunSpec
from infra.contract.states import NEXT, TERMINAL, Status
from infra.contract.tools import TOOLS, parse_args
from infra.contract.usage import EPOCH


def test_every_status_has_a_row_of_transitions() -> None:
    assert set(NEXT) == set(Status)
    assert {status for status in Status if not NEXT[status] - {Status.QUEUED}} == TERMINAL


def test_the_scripts_contain_the_table_of_transitions() -> None:
    text = scripts.load("start").text
    assert "created = { cancelled = true, queued = true }" in text
    assert "succeeded = {  }" in text


SCRIPT_NAMES = sorted(path.stem for path in Path(scripts.__file__).parent.glob("*.lua") if path.stem != "lib")


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_a_script_defines_a_local_for_each_name_in_its_header(name: str) -> None:
    script = scripts.load(name)
    assert script.keys
    for names, values in ((script.keys, "KEYS"), (script.args, "ARGV")):
        for index, each in enumerate(names, 1):
            assert re.search(rf"^local {each} = .*\b{values}\[{index}\]", script.text, re.MULTILINE), each


@pytest.mark.parametrize(
    "args",
    [
        {"token": "t", "inputs_version": 0, "limits": "", "tokens": "t"},
        {"token": "t"},
        {"token": "t", "inputs_version": 0, "limits": "", "id": "other", "unknown": 1},
    ],
)
async def test_a_script_call_with_a_wrong_or_missing_name_is_not_sent(args: dict[str, str]) -> None:
    class UnusedRedis:
        async def command(self, *args: Argument) -> Reply:
            raise AssertionError("the call was sent to Redis")

        async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
            raise AssertionError("the call was sent to Redis")

        async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
            raise AssertionError("the call was sent to Redis")

    caller = scripts.ScriptCaller(UnusedRedis(), Keys())
    with pytest.raises(TypeError, match="'retry' takes the arguments"):
        await caller.call(scripts.load("retry"), args, run_id="r")
    right: dict[str, Argument] = {"token": "t", "inputs_version": 0, "limits": ""}
    with pytest.raises(TypeError, match="no further"):
        await caller.call(scripts.load("retry"), right, run_id="r", more_args=["x"])


def test_every_key_and_channel_starts_with_the_prefix() -> None:
    keys = Keys("{sb}:")
    names = [keys.pending, keys.ready, keys.delayed, keys.leases, keys.dead, keys.unreadable, keys.workers]
    names += [keys.control]
    names += [keys.run("r"), keys.log("r"), keys.channel("r"), keys.user_runs("u"), keys.usage("u", EPOCH)]
    assert all(name.startswith("{sb}:") for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", ["a", "a/b.csv", "ünï/cödé.txt", ".hidden", "a..b", "with space", "x" * 255])
def test_a_plain_relative_path_is_allowed(path: str) -> None:
    assert workspace_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "a\nb",
        "a\0b",
        "a\x7f",
        "\ud800",
        "x" * 256,
        "x/" * 257 + "x",
    ],
)
def test_an_invalid_path_is_rejected_with_its_field(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        workspace_path(path, field="$.x")
    assert caught.value.field == "$.x"


def test_the_reserved_folder_can_be_read_but_not_written() -> None:
    assert workspace_path(".run/step-1.stdout")
    with pytest.raises(InvalidInput, match="reserved"):
        writable_path(".run/step-1.stdout")


@given(st.text(max_size=40))
def test_an_allowed_path_never_leaves_its_folder(path: str) -> None:
    try:
        allowed = workspace_path(path)
    except InvalidInput:
        return
    assert not allowed.startswith("/")
    assert not {"", ".", ".."} & set(allowed.split("/"))


@pytest.mark.parametrize(
    ("tool", "args", "field"),
    [
        ("fly", {}, "$.plan[0].tool"),
        ("shell", {}, "$.plan[0].args.command"),
        ("shell", {"command": 5}, "$.plan[0].args.command"),
        ("shell", {"command": "ls", "cwd": "/"}, "$.plan[0].args.cwd"),
        ("shell", {"command": "ls", "timeout_s": 0}, "$.plan[0].args.timeout_s"),
        ("code", {"language": "perl", "source": "x"}, "$.plan[0].args.language"),
        ("file_write", {"path": "../x", "content": ""}, "$.plan[0].args.path"),
        ("file_write", {"path": ".run/x", "content": ""}, "$.plan[0].args.path"),
        ("file_delete", {"path": "/etc/passwd"}, "$.plan[0].args.path"),
        ("file_read", {"path": "a", "max_bytes": -1}, "$.plan[0].args.max_bytes"),
    ],
)
def test_invalid_tool_arguments_are_rejected_with_their_field(tool: str, args: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RunSpec(plan=[PlanStep(tool=tool, args=args)]).check()
    assert caught.value.field == field


def test_the_error_for_an_unknown_tool_lists_the_allowed_tools() -> None:
    with pytest.raises(InvalidInput, match="unknown tool 'fly'; allowed are browser, code, file_delete"):
        parse_args("fly", {}, at="$")


def test_the_error_for_an_unknown_field_names_it() -> None:
    with pytest.raises(InvalidInput, match="unknown field `cwd`"):
        parse_args("shell", {"command": "ls", "cwd": "/"}, at="$")


def test_a_run_needs_a_prompt_or_a_plan() -> None:
    with pytest.raises(InvalidInput, match="needs a 'prompt', a 'plan', or both"):
        RunSpec().check()


def rule(tool: str, **match: str) -> ApprovalRule:
    return ApprovalRule(tool=tool, policy="ask", match=match or None)


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"tools": ["shell", "sh"]}, "$.tools[1]", "unknown tool 'sh'; allowed are browser, code, file_delete"),
        ({"tools": ["finish"]}, "$.tools[0]", "unknown tool 'finish'"),
        (
            {"approvals": [rule("shell"), rule("fly")]},
            "$.approvals[1].tool",
            "'fly'; allowed are browser, code",
        ),
        (
            {"approvals": [rule("shell", cmd="ls")]},
            "$.approvals[0].match.cmd",
            "'shell' lacks the argument 'cmd'; allowed are command, network, timeout_s",
        ),
        ({"approvals": [rule("*", cmd="ls")]}, "$.approvals[0].match.cmd", "no tool has the argument 'cmd'"),
    ],
)
def test_tools_and_rules_that_nothing_can_match_are_rejected(options: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)) as caught:
        RunSpec(prompt="x", **options).check()
    assert caught.value.field == field


def test_rules_that_can_match_are_accepted() -> None:
    rules = [rule("*"), rule("*", path="a*"), rule("shell", command="ls", timeout_s="*"), rule("file_list")]
    RunSpec(prompt="x", tools=[], approvals=rules).check()


def test_all_tool_arguments_have_docstrings() -> None:
    assert all(kind.__doc__ for kind in TOOLS.values())
    assert MAX_PLAN_STEPS == 200


def test_a_decoded_batch_numbers_its_events() -> None:
    events = [NewEvent(ts=1, type="log", data={"n": n}) for n in range(3)]
    decoded = codec.decode_batch(f'{{"first":7,"events":{codec.encode_events(events)}}}')
    assert [event.seq for event in decoded] == [7, 8, 9]
    assert [event.data["n"] for event in decoded] == [0, 1, 2]


def test_events_with_unknown_fields_of_a_newer_release_are_decoded() -> None:
    decoded = codec.decode_batch('{"first":1,"events":[{"ts":1,"type":"model.delta","new":1,"data":{}}],"new":2}')
    assert decoded[0].type == "model.delta"


def test_equal_values_are_encoded_as_equal_text() -> None:
    assert codec.encode({"b": 1, "a": 2}) == codec.encode({"a": 2, "b": 1})
