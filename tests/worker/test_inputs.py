"""Input files of a run, uploaded to a real store: read, copied from other runs, kept by retries and forks."""

import hashlib
import threading

import httpx
import pytest

from infra.contract.errors import FilesUnavailable
from infra.workspace import Workspaces
from infra.workspace.bucket import Bucket
from tests.support.waiting import until
from tests.worker.rig import Rig
from tests.worker.site import Site
from worker.toolkit.base import ToolContext, ToolFailed

DATA = b"a,b\n1,2\n"
OTHER = b"a,b\n9,9\n"


async def work(context: ToolContext, command: str) -> None:
    """`?name` logs a file, `+name` writes one, `-name` deletes one, `!` fails."""
    name = command[1:]
    if command.startswith("?"):
        await context.output("stdout", (await context.files.read(name)).decode())
    elif command.startswith("+"):
        await context.files.write(name, b"written")
    elif command.startswith("-"):
        await context.files.delete(name)
    else:
        raise ToolFailed("exit_code", "exit code 1")


@pytest.fixture
def site(rig: Rig, workspaces: Workspaces) -> Site:
    return Site(rig, workspaces)


async def test_a_run_reads_its_uploads_and_its_steps_change_them(site: Site) -> None:
    run_id = await site.create("?data.csv", "+data.csv", "-old", "?data.csv")
    await site.upload(run_id, "data.csv", OTHER)
    await site.upload(run_id, "data.csv", DATA)
    await site.upload(run_id, "old", b"")
    await site.upload(run_id, "ä b/100%.csv", DATA)
    await site.start(run_id)
    site.rig.worker(work, workspaces=site.workspaces)
    assert await site.result(run_id) == "succeeded"
    output = [event.data["text"] for event in await site.rig.log(run_id) if event.type == "tool.output"]
    assert output == [DATA.decode(), "written"]
    assert await site.files(run_id) == {"data.csv": b"written", "ä b/100%.csv": DATA}


async def test_an_upload_url_used_after_the_start_changes_nothing_that_the_run_reads(site: Site) -> None:
    run_id = await site.create("?data.csv", "+data.csv", "?data.csv")
    url = await site.upload(run_id, "data.csv", DATA)
    await site.start(run_id)
    headers = site.workspaces.upload_headers(len(DATA), hashlib.sha256(DATA).hexdigest(), None)
    async with httpx.AsyncClient() as http:
        assert (await http.put(url, content=OTHER, headers=headers)).status_code == 400
        site.rig.worker(work, workspaces=site.workspaces)
        assert await site.result(run_id) == "succeeded"
        assert (await http.put(url, content=DATA, headers=headers)).status_code == 200
    assert await site.files(run_id) == {"data.csv": b"written"}


async def test_an_overwritten_input_fails_the_step_that_reads_it_and_no_file_of_a_step(site: Site) -> None:
    run_id = await site.create("+mine", "?mine", "?data.csv")
    await site.upload(run_id, "data.csv", DATA)
    await site.start(run_id)
    await site.overwrite(run_id, "data.csv", OTHER)
    site.rig.worker(work, workspaces=site.workspaces)
    record = await site.rig.ended(run_id)
    assert record.error
    assert (record.error.code, record.error.step, record.attempt) == ("input_changed", 2, 1)
    assert "'data.csv' was overwritten" in record.error.message
    await site.overwrite(run_id, "data.csv", DATA)
    await site.store.retry(run_id, token="t")
    assert await site.result(run_id) == "succeeded"


async def test_a_retry_and_forks_keep_the_uploads_even_after_the_source_is_deleted(site: Site) -> None:
    source = await site.create("-gone", "+mine", "!")
    for path in ("data.csv", "gone"):
        await site.upload(source, path, DATA)
    await site.start(source)
    site.rig.worker(work, workspaces=site.workspaces)
    assert await site.result(source) == "exit_code"
    await site.store.retry(source, token="t")
    assert await site.result(source) == "exit_code"
    assert await site.files(source) == {"data.csv": DATA, "mine": b"written"}

    fork = await site.create("-gone", "+mine", "?data.csv", fork=(source, 2))
    await site.start(fork)
    whole = await site.create("?data.csv", "?gone", fork=(source, 0))
    await site.upload(whole, "data.csv", OTHER)
    await site.start(whole)
    assert [await site.result(run_id) for run_id in (fork, whole)] == ["succeeded", "succeeded"]
    await site.workspaces.delete_run("ada", source)

    again = await site.create("?gone", "?data.csv", fork=(fork, 0))
    await site.start(again)
    assert await site.result(again) == "succeeded"
    assert await site.files(fork) == {"data.csv": DATA, "mine": b"written"}
    assert await site.files(whole) == {"data.csv": OTHER, "gone": DATA}
    assert await site.files(again) == {"data.csv": DATA, "gone": DATA}


async def test_a_file_of_another_run_is_copied_as_it_was_when_it_was_announced(site: Site) -> None:
    source = await site.create("+out", "?out")
    await site.upload(source, "data.csv", DATA)
    await site.start(source)
    site.rig.worker(work, workspaces=site.workspaces)
    assert await site.result(source) == "succeeded"
    run_id = await site.create("?out.txt", "?data")
    await site.copy(run_id, "out.txt", source, "out")
    await site.copy(run_id, "data", source, "data.csv")
    await site.upload(run_id, "own", OTHER)
    await site.start(run_id)
    assert await site.result(run_id) == "succeeded"
    assert await site.files(run_id) == {"out.txt": b"written", "data": DATA, "own": OTHER}
    messages = [event.data["message"] for event in await site.rig.log(run_id) if event.type == "log"]
    assert messages == [f"copied from the run {source}: data, out.txt"]
    assert (await site.rig.kinds(run_id))[:3] == ["run.started", "log", "step.started"]


async def test_a_run_whose_source_was_deleted_fails_with_the_reason(site: Site) -> None:
    source = await site.create("+a")
    await site.start(source)
    site.rig.worker(work, workspaces=site.workspaces)
    await site.result(source)
    run_id = await site.create("?a")
    await site.copy(run_id, "a", source, "a")
    await site.workspaces.delete_run("ada", source)
    await site.start(run_id)
    record = await site.rig.ended(run_id)
    assert record.error
    assert (record.error.code, record.attempt) == ("input_gone", 1)
    assert source in record.error.message


@pytest.mark.parametrize("fault", ["killed", "unavailable"])
async def test_a_copy_that_was_interrupted_is_made_by_the_next_attempt(
    site: Site, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    source = await site.create("+a", "+b")
    await site.start(source)
    first = site.rig.worker(work, workspaces=site.workspaces)
    await site.result(source)
    run_id = await site.create("?a", "?b")
    for path in ("a", "b"):
        await site.copy(run_id, path, source, path)
    reached, go, copy = threading.Event(), threading.Event(), Bucket.copy

    def interrupted(bucket: Bucket, key: str, target: str) -> None:
        is_first = not reached.is_set()
        reached.set()
        if is_first and fault == "unavailable":
            raise FilesUnavailable("the object store failed")
        copy(bucket, key, target)
        if is_first:
            go.wait(60)

    monkeypatch.setattr(Bucket, "copy", interrupted)
    await site.start(run_id)

    async def has_begun() -> bool:
        return reached.is_set()

    await until(has_begun, "the copy has begun")
    if fault == "killed":
        go.set()
        await first.killed()  # cancels its work before it can see that the copy is made
        await site.rig.expire_lease(run_id)
        site.rig.worker(work, workspaces=site.workspaces)
    assert await site.result(run_id) == "succeeded"
    assert (await site.store.get(run_id)).attempt == 2
    assert await site.files(run_id) == {"a": b"written", "b": b"written"}
