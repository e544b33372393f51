"""The token reaches the API only, and no error, log or other server."""

import io
import logging
import traceback

import pytest

from swissbrain import Client, ClientError
from swissbrain.errors import ApiError
from tests.client.scripted_server import (
    TOKEN,
    ScriptedServer,
    close_early,
    page,
    partial,
    problem,
    reply,
    reset,
    scripted_server,
    sse,
)

ANSWERS = [
    reset,
    close_early,
    partial(),
    page(),
    page(401),
    page(502),
    problem(403, "no"),
    reply(200, "[]"),
    sse(ends=reset),
]


def everything_in(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(getattr(error, "__dict__", ""))


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_error_and_no_log_holds_the_token(
    api: ScriptedServer, pauses: list[float], caplog: pytest.LogCaptureFixture, answer: object
) -> None:
    caplog.set_level(logging.DEBUG)
    api.always = answer  # type: ignore[assignment]
    with Client(api.url, TOKEN, patience_s=0) as client:
        for ask in (
            lambda: client.create_run(prompt="x"),
            lambda: client.delete("a"),
            lambda: client.save("a", "b", None),  # type: ignore[arg-type]
            lambda: client.download("a", "b", io.BytesIO()),
            lambda: [*client.events("a")],
        ):
            with pytest.raises((ClientError, AttributeError)) as caught:
                ask()
            assert TOKEN not in everything_in(caught.value)
        assert TOKEN not in repr(client) + repr(vars(client))
    assert TOKEN not in caplog.text
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in api.requests)


@pytest.mark.parametrize(
    "token", [f"{TOKEN}\n", f" {TOKEN}", f"{TOKEN}é", f"{TOKEN}\r\nX: y", f"{TOKEN}\0", "", "\udcff"]
)
def test_a_malformed_token_is_rejected_without_printing_it(token: str) -> None:
    with pytest.raises(ClientError, match=r"^the token is malformed: ") as caught:
        Client("http://127.0.0.1:1", token)
    assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:secret@127.0.0.1:1",
        "http://ada@127.0.0.1:1",
        "http://h:port",
        "http://[::1",
        "http://h/\0",
        "http://a..b",
        "http://",
        "https:///path",
        "http://a:0",
        "http://a:99999",
        "http://a?secret",
        "http://a/#secret",
    ],
)
def test_a_malformed_address_or_one_with_a_password_is_rejected(url: str) -> None:
    with pytest.raises(ClientError, match=r"^the API's address is malformed, or has a user name or a query$") as caught:
        Client(url, TOKEN)
    assert "secret" not in repr(caught.value)


@pytest.mark.parametrize("url", ["", "localhost:8787", "ftp://127.0.0.1", "/path"])
def test_an_address_without_http_is_rejected_without_retries(url: str, pauses: list[float]) -> None:
    with Client(url, TOKEN) as client:
        for ask in (client.queue, lambda: next(client.events("a"))):
            with pytest.raises(ClientError, match="must begin with http:// or https://"):
                ask()
    assert pauses == []


def test_the_token_is_not_sent_to_the_object_store(api: ScriptedServer, client: Client) -> None:
    with scripted_server() as store:
        store.always = reply(200, b"content", "text/plain")
        api.always = reply(307, location=f"{store.url}/bucket/a%20b?X-Amz-Signature=s%2Fs&x=1")
        to = io.BytesIO()
        client.download("run_1", "b.txt", to)
    assert to.getvalue() == b"content"
    (asked,) = store.requests
    assert asked.target == "/bucket/a%20b?X-Amz-Signature=s%2Fs&x=1"
    assert asked.headers.keys().isdisjoint({"authorization", "cookie"})
    assert not any(TOKEN in value for value in asked.headers.values())


def test_the_token_is_not_sent_to_an_object_store_at_the_address_of_the_api(
    api: ScriptedServer, client: Client
) -> None:
    api.then(reply(307, location="/store/b.txt"), reply(200, b"content"))
    client.download("run_1", "b.txt", io.BytesIO())
    assert api.targets[1] == "/store/b.txt"
    assert "authorization" not in api.requests[1].headers


def test_redirects_of_the_api_are_not_followed(api: ScriptedServer, client: Client) -> None:
    with scripted_server() as elsewhere:
        api.always = reply(307, location=elsewhere.url)
        for ask in (
            client.queue,
            lambda: client.get_run("a"),
            lambda: client.delete("a"),
            lambda: [*client.events("a")],
        ):
            with pytest.raises(ClientError) as caught:
                ask()
            assert not isinstance(caught.value, ApiError)
        assert elsewhere.requests == []
