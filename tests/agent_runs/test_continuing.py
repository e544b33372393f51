"""Runs that continue others: chains, files, ends of the source, and what a crash may not change."""

import pytest

from infra.contract.agent import Limits
from infra.contract.states import Status
from tests.agent_runs.killing import Mortal
from tests.agent_runs.script import Gate, finish, plan
from tests.agent_runs.site import AgentSite
from tests.support.waiting import until

WRITE = ("file_write", {"path": "a.txt", "content": "one"})


async def test_a_chain_of_runs_knows_each_prompt_once(site: AgentSite) -> None:
    site.script(plan("Write"), WRITE, finish("First."))
    site.worker()
    runs = [await site.submit("Prompt one")]
    await site.ended(runs[0])
    site.script(*[""] * 3, plan("Talk"), finish("Second."))
    runs.append(await site.submit("Prompt two", continue_of=runs[0]))
    await site.ended(runs[1])
    script = site.script(*[""] * 5, plan("Talk"), finish("Third."))
    runs.append(await site.submit("Prompt three", continue_of=runs[1]))
    assert (await site.ended(runs[2])).error is None
    text = str(script.seen[-1].messages)
    words = ["Prompt one", "First.", "Prompt two", "Second.", "Prompt three"]
    assert [text.count(word) for word in words] == [1] * 5
    assert sorted(words, key=text.index) == words


async def test_a_prompt_that_no_model_has_read_is_not_lost(site: AgentSite) -> None:
    site.script(plan("Write"), finish("First."))
    site.worker()
    first = await site.submit("Prompt one")
    await site.ended(first)
    second = await site.submit("Prompt two", continue_of=first, limits=Limits(input_tokens=10))
    run = await site.ended(second)
    assert run.error is not None
    assert run.error.code == "limit_input_tokens"
    script = site.script(*[""] * 2, plan("Talk"), finish("Third."))
    third = await site.submit("Prompt three", continue_of=second)
    assert (await site.ended(third)).error is None
    text = str(script.seen[0].messages)
    assert text.index("Prompt one") < text.index("Prompt two") < text.index("Prompt three")
    assert text.count("Prompt two") == 1


async def test_new_input_files_replace_those_of_the_source(site: AgentSite) -> None:
    folders = {"path": "b/old.txt", "content": "old"}
    site.script(plan("Write"), [WRITE, ("file_write", folders)], finish())
    site.worker()
    first = await site.submit()
    await site.ended(first)
    site.script(*[""] * 3, plan("Read"), finish())
    second = await site.submit("Again", continue_of=first, start=False)
    await site.upload(second, "a.txt", b"new")
    await site.upload(second, "b", b"no folder any more")
    await site.start(second)
    assert (await site.ended(second)).error is None
    assert await site.files(second) == {"a.txt": b"new", "b": b"no folder any more"}
    assert await site.files(first) == {"a.txt": b"one", "b/old.txt": b"old"}


async def test_a_source_that_is_gone_or_active_again_fails_the_run_and_a_retry_goes_on(site: AgentSite) -> None:
    site.script(plan("Write"), WRITE, *["Let me think."] * 9)
    worker = site.worker()
    source = await site.submit()
    run = await site.ended(source)
    assert run.error is not None
    assert run.error.code == "unfinished"
    await worker.drained()
    second = await site.submit("Go on", continue_of=source)
    gate = Gate("Still thinking.")
    script = site.script(*[gate] * 9)
    await site.store.retry(source, token="again")
    worker = site.worker()
    run = await site.ended(second)
    assert run.error is not None
    assert run.error.code == "continue_source_active"
    await until(gate.reached, "the source goes on")
    gate.open()
    await site.ended(source)
    replies = script.seen[-1].replies + 1
    script = site.script(*[""] * replies, plan("Finish"), finish())
    await site.store.retry(second, token="again")
    assert (await site.ended(second)).status is Status.SUCCEEDED
    third = await site.submit("Once more", continue_of=second, start=False)
    await site.store.mark_deleting(second)
    await site.workspaces.delete_run("ada", second)
    await site.store.delete(second, "ada")
    await site.start(third)
    run = await site.ended(third)
    assert run.error is not None
    assert run.error.code == "continue_source_gone"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_take_over_survives_a_kill(site: AgentSite, when: str) -> None:
    site.script(plan("Write"), WRITE, finish("First."))
    worker = Mortal(site)
    first = await site.submit("Prompt one")
    await site.ended(first)
    await worker.dies_now()
    script = site.script(*[""] * 3, plan("Read"), ("shell", {"command": "cat a.txt"}), finish())
    worker = Mortal(site, "continued", when)  # type: ignore[arg-type]
    second = await site.submit("Prompt two", continue_of=first)
    await worker.dies()
    worker.heir()
    assert (await site.ended(second)).error is None
    assert await site.files(second) == {"a.txt": b"one"}
    assert script.asked == {3: 1, 4: 1, 5: 1}
    assert [event.type for event in await site.log(second)].count("run.continued") == 1
