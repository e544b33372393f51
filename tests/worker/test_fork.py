"""Forks: runs that begin with the first steps of another run."""

from collections import Counter

import pytest

from infra.contract.journal import MAX_INLINE_BYTES
from infra.contract.runs import ForkOf, PlanStep
from infra.contract.states import Status
from infra.workspace import Workspaces
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker.run import context as worker_context
from worker.toolkit.base import ToolContext, ToolFailed


async def edit(context: ToolContext, command: str) -> None:
    """`+name` writes a file, `-name` deletes it, `!` fails after writing `partial`."""
    if command == "!":
        await context.files.write("partial", b"x")
        raise ToolFailed("exit_code", "exit code 1")
    if command.startswith("-"):
        await context.files.delete(command[1:])
    else:
        await context.files.write(command[1:], f"{context.run_id} {context.call}".encode())


def steps(*commands: str) -> list[PlanStep]:
    return [PlanStep(tool="shell", args={"command": command}) for command in commands]


async def contents(rig: Rig, workspaces: Workspaces, run_id: str) -> dict[str, bytes]:
    files = workspaces.run("ada", run_id, 0, await rig.store.files(run_id))
    return {file.path: await files.read(file.path) for file in await files.list()}


async def test_a_fork_has_the_first_steps_and_their_workspace(
    rig: Rig, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_context, "MAX_INLINE_BYTES", 60)
    rig.worker(edit, workspaces=workspaces)
    source = await rig.submit("+a", "+b", "-a", "+c", "!")
    assert (await rig.ended(source)).status is Status.FAILED
    plan = steps("+a", "+b", "-a", "+d")
    fork = await rig.submit(plan=plan, fork_of=ForkOf(run_id=source, from_step=3))
    assert (await rig.ended(fork)).status is Status.SUCCEEDED
    b = f"{source} step-1".encode()
    assert await contents(rig, workspaces, fork) == {"b": b, "d": f"{fork} step-3".encode()}
    assert await rig.kinds(fork) == [
        "run.started",
        "run.forked",
        "step.started",
        "tool.started",
        "tool.finished",
        "step.finished",
        "run.finished",
    ]
    await workspaces.delete_run("ada", source)
    assert (await contents(rig, workspaces, fork))["b"] == b
    again = await rig.submit(plan=[*plan[:3], *steps("+e")], fork_of=ForkOf(run_id=fork, from_step=3))
    assert (await rig.ended(again)).status is Status.SUCCEEDED
    assert (await contents(rig, workspaces, again)).keys() == {"b", "e"}


@pytest.mark.parametrize("max_inline_bytes", [60, MAX_INLINE_BYTES])
async def test_a_fork_has_what_failed_executions_of_a_step_have_left(
    rig: Rig, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch, max_inline_bytes: int
) -> None:
    monkeypatch.setattr(worker_context, "MAX_INLINE_BYTES", max_inline_bytes)

    async def improve(context: ToolContext, command: str) -> None:
        """`?` needs three executions, each of which goes on from what the one before it has left."""
        if command != "?":
            return await edit(context, command)
        found = {file.path for file in await context.files.list()}
        if "first" in found:
            await edit(context, "-first")
            return await edit(context, "+second")
        await edit(context, "-old/file" if "old/file" in found else "+first")
        raise ToolFailed("exit_code", "exit code 1")

    rig.worker(improve, workspaces=workspaces)
    plan = steps("+old/file", "+kept", "?", "+end")
    source = await rig.submit(plan=plan)
    for token in ("first", "second"):
        assert (await rig.ended(source)).status is Status.FAILED
        await rig.store.retry(source, token=token)
    assert (await rig.ended(source)).status is Status.SUCCEEDED
    expected = await contents(rig, workspaces, source)
    assert expected.keys() == {"kept", "second", "end"}
    fork = await rig.submit(plan=[*plan[:3], *steps("+end")], fork_of=ForkOf(run_id=source, from_step=3))
    assert (await rig.ended(fork)).status is Status.SUCCEEDED
    assert (await contents(rig, workspaces, fork)).keys() == expected.keys()
    assert await rig.store.folders(fork) == await rig.store.folders(source) != {}
    earlier = await rig.submit(plan=[*plan[:2], *steps("+end")], fork_of=ForkOf(run_id=source, from_step=2))
    assert (await rig.ended(earlier)).status is Status.SUCCEEDED
    assert (await contents(rig, workspaces, earlier)).keys() == {"old/file", "kept", "end"}


async def test_a_fork_is_complete_although_every_other_reply_is_lost(rig: Rig, workspaces: Workspaces) -> None:
    """The first reply of each kind is lost, too: no lost reply of a read or write may fail the run."""
    calls: Counter[str] = Counter()

    def loses(name: str) -> bool:
        calls[name] += 1
        return calls[name] % 2 == 1 and name != "claim"

    async def talk(context: ToolContext, command: str) -> None:
        await context.output("stdout", "x" * 100_000)
        await edit(context, command)

    source = await rig.submit("+a", "+b", "+c")
    other = rig.worker(edit, workspaces=workspaces)
    await rig.ended(source)
    await other.drained()
    rig.worker(talk, workspaces=workspaces, loses=loses)
    fork = await rig.submit(plan=steps("+a", "+b", "+d"), fork_of=ForkOf(run_id=source, from_step=2))
    ended = await rig.ended(fork)
    assert (ended.status, ended.attempt) == (Status.SUCCEEDED, 1)

    async def archived() -> bool:
        log = await rig.store.log(fork)
        return log.archived == log.seq and calls["trim"] > 1

    await until(archived, "the log is archived, and the reply to the last trim has arrived")
    assert (await contents(rig, workspaces, fork)).keys() == {"a", "b", "d"}
    assert all(calls[name] > 1 for name in ("HSCAN", "emit", "finish", "XRANGE"))


async def test_a_fork_of_a_deleted_run_fails_with_the_reason(rig: Rig, workspaces: Workspaces) -> None:
    rig.worker(edit, workspaces=workspaces)
    fork = await rig.submit(plan=steps("+a", "+b"), fork_of=ForkOf(run_id="run_gone", from_step=1))
    record = await rig.ended(fork)
    assert record.error
    assert (record.status, record.error.code) == (Status.FAILED, "fork_source_gone")
