"""A person at a terminal who answers a followed run: against the real API, with a simulated worker."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.contract.log import NewEvent
from infra.contract.queue import Lease
from swissbrain import Client, Event
from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from tests.client.real_api import Real
from tests.edge.stack import TOKENS, SimulatedWorker
from tests.support.requests import approval, question
from tests.support.terminal import TerminalResult, on_terminal
from tests.support.waiting import wait_until

Replies = Sequence[tuple[str, Callable[[], str]]]
APPROVES = "y or N, and a comment after it: "


@pytest.fixture
def ada(real: Real, worker: SimulatedWorker) -> Iterator[Client]:
    with Client(real.url, TOKENS["ada"]) as made:
        yield made


def says(text: str) -> Callable[[], str]:
    return lambda: text


def following(
    pool: ThreadPoolExecutor, real: Real, run_id: str, folder: Path, replies: Replies
) -> Future[TerminalResult]:
    return pool.submit(typed, real, folder, replies, "logs", run_id, "-f")


def typed(real: Real, folder: Path, replies: Replies, *words: str) -> TerminalResult:
    env = {**os.environ, URL: real.url, TOKEN_VARIABLE: TOKENS["ada"]}
    return on_terminal([sys.executable, "-m", "swissbrain", *words], cwd=folder, env=env, replies=replies)


def claimed_again(real: Real, worker: SimulatedWorker, client: Client, run_id: str) -> Lease:
    wait_until(lambda: client.get_run(run_id).status == "queued", "the run has its answer", timeout_s=60)
    return real.do(worker.claim())


def model(kind: str, text: str) -> NewEvent:
    return NewEvent(ts=1_790_000_000_000, type=kind, step=None, data={"text": text, "n": 0})


def test_a_person_answers_a_question_by_number_and_approves_a_call(
    real: Real, worker: SimulatedWorker, ada: Client, tmp_path: Path
) -> None:
    run_id = ada.create_run(prompt="x").run_id
    lease = real.do(worker.claim())
    for event in (model("model.delta", "Let me "), model("model.delta", "ask."), model("model.message", "Let me ask.")):
        real.do(worker.emit(lease, event))
    real.do(worker.wait(lease, question("q1")))
    replies = [("number or answer: ", says("2\n")), (APPROVES, says("perhaps\n")), (APPROVES, says("y with care\n"))]
    with ThreadPoolExecutor(1) as pool:
        result = following(pool, real, run_id, tmp_path, replies)
        lease = claimed_again(real, worker, ada, run_id)
        real.do(worker.wait(lease, approval("a1")))
        lease = claimed_again(real, worker, ada, run_id)
        real.do(worker.finish(lease))
        shown = result.result()
    assert shown.code == 0, shown.text
    assert shown.text.count("Let me ask.") == 1
    assert "  2) b\n" in shown.text
    assert "      │ rm -rf /\n" in shown.text
    given = [event.data for event in ada.logs(run_id, event_type="run.input") if isinstance(event, Event)]
    assert [(each["decision"], each.get("input"), each.get("comment")) for each in given] == [
        ("answered", "b", None),
        ("approved", None, "with care"),
    ]


def test_who_answers_first_wins_and_the_other_goes_on_following(
    real: Real, worker: SimulatedWorker, ada: Client, tmp_path: Path
) -> None:
    run_id = ada.create_run(prompt="x").run_id
    real.do(worker.wait(real.do(worker.claim()), approval("a1")))

    def second() -> str:
        ada.deny(run_id, "a1")
        return "y\n"

    with ThreadPoolExecutor(1) as pool:
        result = following(pool, real, run_id, tmp_path, [(APPROVES, second)])
        real.do(worker.finish(claimed_again(real, worker, ada, run_id)))
        shown = result.result()
    assert shown.code == 0, shown.text
    assert "answered already, or no longer asked" in shown.text
    assert "denied by ada" in shown.text
    assert shown.text.endswith("run succeeded\n")


def test_ctrl_c_at_a_prompt_ends_following_and_ctrl_d_leaves_the_request_open(
    real: Real, worker: SimulatedWorker, ada: Client, tmp_path: Path
) -> None:
    run_id = ada.create_run(prompt="x").run_id
    real.do(worker.wait(real.do(worker.claim()), approval("a1"), question("q1")))
    with ThreadPoolExecutor(2) as pool:
        stopped = following(pool, real, run_id, tmp_path, [(APPROVES, says("\x03"))])
        replies = [(APPROVES, says("\x04")), ("--request q1' answers", says("\x03"))]
        left = following(pool, real, run_id, tmp_path, replies)
        assert (stopped.result().code, left.result().code) == (130, 130)
    assert "the run continues" in stopped.result().text
    assert f"not answered; 'swissbrain approve {run_id} a1'" in left.result().text.replace("\n", "")
    waiting = ada.get_run(run_id).waiting
    assert waiting
    assert [request.id for request in waiting.requests] == ["a1", "q1"]


def test_a_terminal_asks_before_it_approves_a_call_that_was_not_named(
    real: Real, worker: SimulatedWorker, ada: Client, tmp_path: Path
) -> None:
    run_id = ada.create_run(prompt="x").run_id
    real.do(worker.wait(real.do(worker.claim()), approval("a1"), question("q1")))
    refused = typed(real, tmp_path, [("approve exactly this call?", says("n\n"))], "approve", run_id)
    assert refused.code == 2
    assert "      │ rm -rf /\n" in refused.text
    assert "nothing was changed" in refused.text
    answered = typed(real, tmp_path, [(APPROVES, says("\n")), ("number or answer: ", says("fine\n"))], "resume", run_id)
    assert (answered.code, answered.text.endswith("\nqueued\n")) == (0, True), answered.text
    given = [event.data for event in ada.logs(run_id, event_type="run.input") if isinstance(event, Event)]
    assert [(each["decision"], each.get("input")) for each in given] == [("denied", None), ("answered", "fine")]
