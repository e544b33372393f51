"""Runs with a prompt: plan, calls, results, failures that the model mends, and ends."""

from infra.contract.states import Status
from tests.agent_runs.script import finish, plan
from tests.agent_runs.site import AgentSite


async def test_a_prompt_is_planned_worked_on_and_finished(site: AgentSite) -> None:
    script = site.script(
        plan("Write the file", "Check it"),
        [("file_write", {"path": "a.txt", "content": "hello"}), ("step_done", {"outcome": "written"})],
        ("shell", {"command": "cat a.txt"}),
        lambda chat: finish("It says hello.", files=["a.txt"]) if "hello" in chat.last else "no",
    )
    site.worker()
    run_id = await site.submit("Write hello into a.txt")
    run = await site.ended(run_id)
    assert (run.status, run.error) == (Status.SUCCEEDED, None)
    assert run.result == {
        "summary": "It says hello.",
        "files": [{"path": "a.txt", "size_bytes": 5}],
        "steps": [
            {"goal": "Write the file", "expected": "", "outcome": "written"},
            {"goal": "Check it", "expected": "", "outcome": ""},
        ],
    }
    assert await site.files(run_id) == {"a.txt": b"hello"}
    assert script.asked == {0: 1, 1: 1, 2: 1, 3: 1}
    kinds = [(event.type, event.step) for event in await site.log(run_id) if event.type != "model.delta"]
    assert kinds == [
        ("run.started", None),
        ("model.started", None),
        ("model.message", None),
        ("plan.created", None),
        ("step.started", 0),
        ("model.started", 0),
        ("model.message", 0),
        ("tool.started", 0),
        ("artifact", 0),
        ("tool.finished", 0),
        ("step.finished", 0),
        ("step.started", 1),
        ("model.started", 1),
        ("model.message", 1),
        ("tool.started", 1),
        ("tool.output", 1),
        ("tool.finished", 1),
        ("model.started", 1),
        ("model.message", 1),
        ("step.finished", 1),
        ("run.finished", None),
    ]


async def test_a_follow_up_has_the_files_and_the_conversation_and_leaves_the_source_alone(site: AgentSite) -> None:
    site.script(plan("Write"), ("file_write", {"path": "a.txt", "content": "one"}), finish("Wrote one."))
    site.worker()
    first = await site.submit("Write one")
    assert (await site.ended(first)).status is Status.SUCCEEDED
    script = site.script(
        "the replies of the first run",
        *[""] * 2,
        lambda chat: (
            plan("Read") if "Wrote one." in str(chat.messages) and "And now two" in str(chat.messages) else "no"
        ),
        ("shell", {"command": "cat a.txt && echo two > a.txt"}),
        lambda chat: finish("Wrote two.") if "one" in chat.results[0] else "no",
    )
    second = await site.submit("And now two", continue_of=first)
    run = await site.ended(second)
    assert run.error is None
    assert run.result is not None
    assert run.result["summary"] == "Wrote two."
    assert script.asked == {3: 1, 4: 1, 5: 1}
    assert script.seen[0].messages[1]["content"].startswith("Write one")
    assert (await site.files(first), await site.files(second)) == ({"a.txt": b"one"}, {"a.txt": b"two\n"})
    third = await site.submit("And again", continue_of=second)
    site.script(*[""] * 6, plan("Nothing"), lambda chat: finish("Done.") if "Write one" in str(chat.messages) else "no")
    assert (await site.ended(third)).error is None
    assert run.usage is not None
    assert run.usage.exchanges == 3
