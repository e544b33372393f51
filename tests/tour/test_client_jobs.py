"""Both clients against a dev stack: files in, programs run by real workers, results and logs out."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from infra.devstack.stack import DevStack
from swissbrain import ApiError, Client, Event, RunFailed, code, shell
from tests.client.both_clients import CLIENTS


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, dev_stack: DevStack) -> Iterator[Client]:
    connect = CLIENTS[request.param]
    with connect(dev_stack.env["SWISSBRAIN_API_URL"], dev_stack.env["SWISSBRAIN_TOKEN"]) as made:
        yield made


def text(items: object) -> list[str]:
    assert isinstance(items, list)
    return [item.data["text"] for item in items if isinstance(item, Event)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty", b""), ("a b/é +%&#?.csv", b"\0\xff"), ("large.bin", bytes(range(256)) * 20_000)],
    ids=["empty", "awkward name", "5 MB"],
)
def test_an_uploaded_file_arrives_unchanged(client: Client, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "source").write_bytes(content)
    run = client.run(shell("find . -type f -exec sha256sum {} +"), files={name: tmp_path / "source"})
    (line,) = text(client.logs(run.run_id, stream="stdout"))
    assert line.split()[0].lstrip("\\") == hashlib.sha256(content).hexdigest()
    assert client.read_bytes(run.run_id, name) == content
    client.save(run.run_id, name, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_a_file_is_uploaded_twice_at_the_same_time_and_then_replaced(client: Client) -> None:
    run = client.create_run(shell("cat a"), start=False)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: client.upload(run.run_id, "a", b"one"), range(2))
    assert first.sha256 == second.sha256
    client.upload(run.run_id, "a", b"two")
    client.start(run.run_id)
    client.wait(run.run_id, timeout_s=60)
    assert text(client.logs(run.run_id, stream="stdout")) == ["two"]
    with pytest.raises(ApiError) as caught:
        client.upload(run.run_id, "a", b"three")
    assert (caught.value.status, caught.value.run_status) == (409, "succeeded")


def test_an_upload_that_was_interrupted_is_missing_at_the_start(
    client: Client,
) -> None:
    class Interrupted(Exception):
        """End of the client in the middle of an upload."""

    def end(_sent: int) -> None:
        raise Interrupted

    run = client.create_run(shell("cat a"), start=False)
    with pytest.raises(Interrupted):
        client.upload(run.run_id, "a", b"x" * 2_000_000, on_bytes=end)
    with pytest.raises(ApiError) as caught:
        client.start(run.run_id)
    assert (caught.value.status, caught.value.missing) == (409, ["a"])
    client.upload(run.run_id, "a", b"x")
    client.start(run.run_id)
    assert client.wait(run.run_id, timeout_s=60).status == "succeeded"


def test_content_that_changes_while_it_is_sent_is_refused(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1" * 600_000)
    run = client.create_run(shell("true"), start=False)

    def change(sent: int) -> None:
        if sent < 600_000:
            path.write_bytes(b"2" * 600_000)

    with pytest.raises(ApiError, match="the object store refused 'a'"):
        client.upload(run.run_id, "a", path, on_bytes=change)
    with pytest.raises(ApiError) as caught:
        client.start(run.run_id)
    assert caught.value.missing == ["a"]


def test_a_run_begins_with_the_file_of_another_run(client: Client) -> None:
    source = client.run(shell("echo result > out.txt"))
    run = client.create_run(shell("cat in/data.txt"), start=False)
    client.copy_file(run.run_id, "in/data.txt", from_run=source.run_id, source="out.txt")
    client.start(run.run_id)
    assert client.wait(run.run_id, timeout_s=60).status == "succeeded"
    assert client.read_text(run.run_id, "in/data.txt") == "result\n"


def test_a_failure_has_the_error_output_of_its_step(client: Client) -> None:
    plan = [shell("echo early >&2"), code.python("import sys; sys.exit('no such column')"), shell("true")]
    with pytest.raises(RunFailed) as caught:
        client.run(plan, max_attempts=1)
    assert caught.value.error
    assert (caught.value.error.step, caught.value.stderr) == (1, ["no such column"])
    steps = client.steps(caught.value.run.run_id)
    assert [(step.index, step.tool, step.status) for step in steps] == [
        (0, "shell", "succeeded"),
        (1, "code", "failed"),
        (2, "shell", "pending"),
    ]
    assert steps[1].error
    assert steps[1].error.code == "exit_code"


def test_anybody_can_fetch_a_file_by_its_link(client: Client) -> None:
    run = client.run(shell("echo hello > a.txt"))
    link = client.file_link(run.run_id, "a.txt")
    assert httpx.get(link.url, trust_env=False).text == "hello\n"
    assert link.size_bytes == 6
    assert client.file_link(run.run_id, "a.txt", inline=True).content_type.startswith("text/plain")
