"""Redirects: only the one of a file is followed; every other one is named."""

import io
import re

import pytest

from swissbrain import Client, ProtocolError
from tests.client.scripted_server import ScriptedServer, reply


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("https://api.example/agent/x", "https://api.example/agent/x;"),
        ("/moved", "/moved;"),
        ("https://ada:secret@api.example/a?key=secret#secret", "https://api.example/a;"),
    ],
)
def test_a_redirect_of_any_request_is_named(
    api: ScriptedServer, client: Client, status: int, location: str, named: str
) -> None:
    api.always = reply(status, location=location)
    for ask in (
        client.queue,
        lambda: client.create_run(prompt="x"),
        lambda: client.delete("a"),
        lambda: next(client.events("a")),
    ):
        with pytest.raises(ProtocolError, match=f"HTTP status {status}, a redirect to .*{re.escape(named)}") as caught:
            ask()
        assert "secret" not in str(caught.value)
    assert len(api.requests) == 4


def test_a_file_that_is_redirected_to_its_own_path_is_not_taken_for_stored(api: ScriptedServer, client: Client) -> None:
    for status in (301, 307, 308):
        api.always = reply(status, location="https://api.example/agent/runs/a/files/b")
        with pytest.raises(ProtocolError, match=r"a redirect to https://api\.example/agent/runs/a/files/b;"):
            client.download("a", "b", io.BytesIO())


@pytest.mark.parametrize("status", [300, 304])
def test_other_answers_without_a_result_are_named_by_their_status(
    api: ScriptedServer, client: Client, status: int
) -> None:
    api.always = reply(status)
    with pytest.raises(ProtocolError, match=f"HTTP status {status}$"):
        client.queue()
