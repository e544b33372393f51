"""Decisions about the calls by which a model steers its run."""

from tests.agent.calling import setup
from worker.agent.control import Situation, decide
from worker.agent.entries import GoalStep
from worker.agent.progress import Progress
from worker.agent.schemas import ReplanArgs


async def test_the_log_says_why_a_step_was_given_up() -> None:
    progress = Progress(steps=[GoalStep(goal="read")], plans=1, replans=False)
    situation = Situation(tool="replan", setup=setup(), progress=progress, files=(), failed=False)
    (ended,) = (await decide(ReplanArgs(reason="the file is missing"), situation)).events
    assert (ended.type, ended.step) == ("step.finished", 0)
    assert (ended.data["status"], ended.data["message"]) == ("failed", "the file is missing")
