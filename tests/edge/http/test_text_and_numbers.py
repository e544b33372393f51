"""Text and numbers of a body: how clients write them does not change what they mean."""

import gzip

import httpx
import pytest
from msgspec import json

from edge_api.http import parsing
from tests.edge.stack import PLAN, SimulatedWorker, create

JSON = {"Content-Type": "application/json"}
BODY = json.encode({**PLAN, "start": False})


def with_fields(fields: str) -> bytes:
    return BODY[:-1] + f",{fields}}}".encode()


async def post(http: httpx.AsyncClient, content: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post("/agent/runs", content=content, headers={**JSON, **named})


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ('"priority":4.0', "priority", 4),
        ('"priority":-0.0', "priority", 0),
        ('"max_attempts":1e0', "max_attempts", 1),
        ('"max_attempts":0.2E+1', "max_attempts", 2),
        ('"start_at_ms":1.795453200E12', "start_at_ms", 1795453200000),
        ('"timeout_s":60', "timeout_s", 60),
        ('"timeout_s":0.5', "timeout_s", 0.5),
    ],
)
async def test_whole_numbers_are_integers_however_they_are_written(
    ada: httpx.AsyncClient, fields: str, name: str, value: float
) -> None:
    answer = await post(ada, with_fields(fields))
    assert answer.status_code == 201, answer.text
    assert answer.json()[name] == value


async def test_integers_of_nested_objects_and_of_other_endpoints_may_have_a_point(ada: httpx.AsyncClient) -> None:
    step = '{"tool":"message","args":{"text":"x"},"timeout_s":5}'
    run_id = await create(ada)
    fork = await ada.post(f"/agent/runs/{run_id}/fork", content=b'{"from_step":0.0}', headers=JSON)
    assert fork.status_code == 201, fork.text
    token = await ada.post(f"/agent/runs/{run_id}/stream-token", content=b'{"expires_s":6e1}', headers=JSON)
    assert token.status_code == 201, token.text
    spec = f'{{"action":"create","plan":[{step}],"fork_of":{{"run_id":"{run_id}","from_step":0E5}}}}'
    assert (await ada.post("/agent/execute", content=spec, headers=JSON)).status_code == 201


@pytest.mark.parametrize("number", ["4.5", "1e-1", "4.0000000001", '"4"', '"4.0"', "1e30", "true"])
async def test_other_values_are_no_integers(ada: httpx.AsyncClient, number: str) -> None:
    answer = await post(ada, with_fields(f'"priority":{number}'))
    assert (answer.status_code, answer.json()["field"]) == (422, "$.priority")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400 + ".5", "NaN", "Infinity"])
async def test_numbers_beyond_a_double_are_rejected(ada: httpx.AsyncClient, number: str) -> None:
    for fields in (f'"timeout_s":{number}', f'"plan":[{{"tool":"message","args":{{"text":{number}}}}}]'):
        assert (await post(ada, with_fields(fields))).status_code in {400, 422}


@pytest.mark.parametrize("spellings", [["1", "1.0", "1e0", "10E-1", "1.000"], ["1.5", "1.50", "15e-1"]])
async def test_equal_numbers_are_the_same_content_for_an_idempotency_key(
    ada: httpx.AsyncClient, spellings: list[str]
) -> None:
    answers = []
    for number in spellings:
        step = f'{{"tool":"shell","args":{{"command":"true","timeout_s":{number}}},"timeout_s":{number}}}'
        answers.append(await post(ada, f'{{"plan":[{step}],"start":false}}'.encode(), Idempotency_Key="k"))
    assert [answer.status_code for answer in answers] == [201, *[200] * (len(spellings) - 1)]
    assert len({answer.json()["run_id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "spellings", [["0", "-0", "0.0", "-0.0", "0e9"], ["1e20", "100000000000000000000", "1.0E+20"], ["1e21", "10E20"]]
)
def test_equal_numbers_of_any_size_are_one_value(spellings: list[str]) -> None:
    assert len({repr(parsing._decoder.decode(number)) for number in spellings}) == 1


async def test_a_byte_order_mark_is_ignored(ada: httpx.AsyncClient) -> None:
    assert (await post(ada, b"\xef\xbb\xbf" + BODY)).status_code == 201
    assert (await post(ada, b"\xef\xbb\xbf")).status_code == 400
    assert (await post(ada, b"\xef\xbb\xbf" * 2 + BODY)).status_code == 400


async def test_line_ends_and_unusual_characters_arrive_as_they_were_sent(ada: httpx.AsyncClient) -> None:
    text = "a\r\nb\rc\n\u2028\ufeff\u0085\x00"
    run = (await ada.post("/agent/runs", json={"plan": [{"tool": "message", "args": {"text": text}}]})).json()
    assert (await ada.get(run["links"]["self"])).json()["plan"][0]["args"]["text"] == text


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "x-made-up"])
async def test_a_compressed_body_is_rejected_by_its_coding(ada: httpx.AsyncClient, coding: str) -> None:
    run_id = await create(ada, start=False)
    for url in ("/agent/runs", "/agent/execute", f"/agent/runs/{run_id}/start", f"/agent/runs/{run_id}/stream-token"):
        headers = {**JSON, "Content-Encoding": coding}
        answer = await ada.post(url, content=gzip.compress(BODY), headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (415, "urn:swissbrain:problem:coded-body"), url
        assert (problem["field"], answer.headers["accept-encoding"]) == ("Content-Encoding", "identity")
        assert coding.lower().removeprefix("identity, ") in problem["detail"]


async def test_a_header_that_is_there_twice_counts_as_one_with_both_values(ada: httpx.AsyncClient) -> None:
    for name, first in (("Content-Encoding", "identity"), ("Idempotency-Key", "a")):
        headers = [("Content-Type", "application/json"), (name, first)]
        accepted = await ada.post("/agent/runs", content=BODY, headers=headers)
        assert accepted.status_code == 201, name
        refused = await ada.post("/agent/runs", content=BODY, headers=[*headers, (name, "gzip")])
        assert (refused.status_code in {415, 422}, refused.json()["field"]) == (True, name)


@pytest.mark.parametrize("coding", ["identity", "Identity", "", "identity, identity"])
async def test_a_body_without_compression_may_say_so(ada: httpx.AsyncClient, coding: str) -> None:
    assert (await post(ada, BODY, Content_Encoding=coding)).status_code == 201


async def test_a_charset_is_named_if_the_body_cannot_be_read(ada: httpx.AsyncClient) -> None:
    latin = "application/json; charset=ISO-8859-1"
    answer = await post(ada, '{"prompt":"é"}'.encode("latin-1"), Content_Type=latin)
    assert (answer.status_code, answer.json()["type"]) == (415, "urn:swissbrain:problem:wrong-media-type")
    assert "iso-8859-1" in answer.json()["detail"]
    assert (await post(ada, BODY, Content_Type=latin)).status_code == 201
    answer = await post(ada, b'{"prompt":"\xe9"}', Content_Type='application/json; charset="UTF-8"')
    assert answer.json()["detail"] == "the body is not valid JSON: it is not UTF-8 (byte 11)"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ('{"prompt":"a","prompt":"b"}', "prompt"),
        ('{"prompt":"a","pr\\u006fmpt":"a"}', "prompt"),
        ('{"prompt":"a","metadata":{"k":"1","j":"","k":"2"}}', "k"),
        ('{"plan":[{"tool":"message","args":{"text":"a","text":"b"}}]}', "text"),
        ('{"prompt":"a","output_schema":{"enum":[[{"":1,"":1}]]}}', ""),
    ],
)
async def test_a_key_is_in_an_object_once(ada: httpx.AsyncClient, worker: SimulatedWorker, body: str, key: str) -> None:
    batch = f'{{"runs":[{body}]}}'
    for url, content in (
        ("/agent/runs", body),
        ("/agent/execute", body.replace("{", '{"action":"create",', 1)),
        ("/agent/runs/batch", batch),
    ):
        answer = await ada.post(url, content=content.encode(), headers=JSON)
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:swissbrain:problem:bad-request"), url
        assert f"the key '{key}' twice" in answer.json()["detail"]
    assert await worker.size() == 0


async def test_equal_keys_of_different_objects_are_no_repetition(ada: httpx.AsyncClient) -> None:
    body = b'{"plan":[{"tool":"shell","args":{"command":"a"},"name":"a"},{"tool":"shell","args":{"command":"a"}}]}'
    assert (await post(ada, body)).status_code == 201


@pytest.mark.parametrize(
    ("fields", "detail", "field"),
    [
        ('"%s":1', "Object contains unknown field `éé", "$.éé"),
        ('"webhook_events":["%s"]', "Invalid enum value 'éé", "$.webhook_events[0]"),
    ],
)
async def test_an_error_repeats_no_more_of_a_name_or_a_value_than_people_read(
    ada: httpx.AsyncClient, fields: str, detail: str, field: str
) -> None:
    answer = await post(ada, with_fields(fields % ("é" * 400_000)))
    problem = answer.json()
    assert answer.status_code == 422
    assert problem["detail"].startswith(detail)
    assert "; allowed are " in problem["detail"]
    assert problem["field"].startswith(field)
    assert len(answer.content) < 3000
