"""Creation of many runs in batches: in order, each with its own key and its own answer."""

from typing import Any

import pytest

from swissbrain import ApiError, Client, ClientError, NewRun, ProtocolError, Run, shell
from tests.client.scripted_server import ScriptedServer, ok, problem, run
from tests.support.scripted_http import Wire


def answer_all(wire: Wire, api: ScriptedServer, **refused: Any) -> None:
    """Answer a batch: create each run, except those whose prompt is refused, with a status."""
    results: list[dict[str, Any]] = []
    for entry in api.requests[-1].json["runs"]:
        status = refused.get(entry["prompt"])
        if status is None:
            results.append({"status": 201, "run": run(entry["prompt"])})
        else:
            detail = {
                "type": "t",
                "title": "t",
                "status": status,
                "detail": "refused",
                "field": f"$.runs[{len(results)}].x",
            }
            results.append({"status": status, "problem": detail})
    ok({"results": results})(wire)


def ids(made: list[Run | ApiError]) -> list[str]:
    return [one.run_id if isinstance(one, Run) else f"{one.status}" for one in made]


def test_many_runs_are_created_in_order(api: ScriptedServer, client: Client) -> None:
    api.always = lambda wire: answer_all(wire, api)
    assert ids(client.create_many([{"prompt": f"p{n}"} for n in range(250)])) == [f"p{n}" for n in range(250)]
    assert [len(request.json["runs"]) for request in api.requests] == [100, 100, 50]
    entries = [entry for request in api.requests for entry in request.json["runs"]]
    assert len({entry["idempotency_key"] for entry in entries}) == 250
    assert client.create_many([]) == []


def test_runs_are_given_as_structs_or_mappings(api: ScriptedServer, client: Client) -> None:
    api.always = lambda wire: answer_all(wire, api)
    client.create_many(
        [
            NewRun(prompt="a", plan=shell("x"), idempotency_key="k", metadata={"a": "b"}),
            {"prompt": "b", "plan": [{"tool": "shell", "args": {"command": "x"}}], "start": False},
        ]
    )
    first, second = api.requests[0].json["runs"]
    step = {"tool": "shell", "args": {"command": "x"}}
    assert first == {"prompt": "a", "plan": [step], "start": True, "idempotency_key": "k", "metadata": {"a": "b"}}
    assert (second["plan"], second["start"]) == ([step], False)


def test_batches_stay_below_the_limit_of_a_request(api: ScriptedServer, client: Client) -> None:
    api.always = lambda wire: ok({"results": [{"status": 201, "run": run()}] * len(api.requests[-1].json["runs"])})(
        wire
    )
    client.create_many([{"prompt": "x" * 90_000}] * 25)
    assert sum(len(request.json["runs"]) for request in api.requests) == 25
    assert max(len(request.body) for request in api.requests) <= 2**20
    assert len(api.requests) == 3


def test_a_refused_run_does_not_affect_the_others(api: ScriptedServer, client: Client) -> None:
    api.always = lambda wire: answer_all(wire, api, b=422)
    made = client.create_many([{"prompt": name} for name in "abc"])
    assert ids(made) == ["a", "422", "c"]
    assert isinstance(made[1], ApiError)
    assert (str(made[1]), made[1].field) == ("refused ($.x)", "$.x")


def test_busy_entries_alone_are_sent_again_with_their_keys(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.then(lambda wire: answer_all(wire, api, b=503, d=429), lambda wire: answer_all(wire, api, d=503))
    api.always = lambda wire: answer_all(wire, api)
    assert ids(client.create_many([{"prompt": name} for name in "abcd"])) == ["a", "b", "c", "d"]
    sent = [{entry["prompt"]: entry["idempotency_key"] for entry in request.json["runs"]} for request in api.requests]
    assert [[*one] for one in sent] == [["a", "b", "c", "d"], ["b", "d"], ["d"]]
    assert sent[0]["d"] == sent[2]["d"]


def test_an_entry_that_stays_busy_is_returned_as_an_error(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.always = lambda wire: answer_all(wire, api, b=503)
    assert ids(client.create_many([{"prompt": name} for name in "ab"])) == ["a", "503"]
    assert len(api.requests) == 5


def test_a_refused_batch_is_raised(api: ScriptedServer, client: Client) -> None:
    api.always = problem(403, "the token lacks the scope")
    with pytest.raises(ApiError):
        client.create_many([{"prompt": "a"}])


def test_a_run_too_large_for_a_request_is_its_own_result(api: ScriptedServer, client: Client) -> None:
    api.then(lambda wire: answer_all(wire, api), problem(413, "too large"))
    assert ids(client.create_many([{"prompt": "a"}, {"prompt": "x" * 1_100_000}])) == ["a", "413"]


def test_unknown_fields_and_wrong_answers_are_errors(api: ScriptedServer, client: Client) -> None:
    with pytest.raises(ClientError, match=r"^unknown field 'promt' of a run; allowed are plan, "):
        client.create_many([{"promt": "a"}])
    assert api.requests == []
    api.always = ok({"results": []})
    with pytest.raises(ProtocolError):
        client.create_many([{"prompt": "a"}])
