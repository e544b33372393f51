"""Files of a run in a local folder: selected by patterns, resumed, and never outside of the folder."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swissbrain import Client
from swissbrain.cli.downloads import save_files, select_files
from swissbrain.models import File
from tests.client.conftest import Command
from tests.client.scripted_server import ScriptedServer, ok, page, reply, scripted_server

PATHS = ["a.csv", "out/b.csv", "out/deep/c.csv", "out/deep/d.txt", ".run/step-0.stdout", "out2/e.csv", "w[1].csv"]


def file(path: str, size: int = 2, modified_ms: int = 1_790_000_000_123) -> dict[str, object]:
    return {"path": path, "size_bytes": size, "modified_ms": modified_ms}


@pytest.mark.parametrize(
    ("path", "selected"),
    [
        (None, ["a.csv", "out/b.csv", "out/deep/c.csv", "out/deep/d.txt", "out2/e.csv", "w[1].csv"]),
        ("*.csv", ["a.csv", "w[1].csv"]),
        ("*/*.csv", ["out/b.csv", "out2/e.csv"]),
        ("**/*.csv", ["a.csv", "out/b.csv", "out/deep/c.csv", "out2/e.csv", "w[1].csv"]),
        ("out/**", ["out/b.csv", "out/deep/c.csv", "out/deep/d.txt"]),
        ("out", ["out/b.csv", "out/deep/c.csv", "out/deep/d.txt"]),
        ("out/", ["out/b.csv", "out/deep/c.csv", "out/deep/d.txt"]),
        ("out/deep/?.txt", ["out/deep/d.txt"]),
        (".run/*", [".run/step-0.stdout"]),
        ("w[1].csv", ["w[1].csv"]),
        ("[!a].csv", []),
        ("none", []),
    ],
)
def test_a_path_selects_a_file_a_folder_or_what_it_matches(path: str | None, selected: list[str]) -> None:
    files = [File(path=each, size_bytes=1, modified_ms=1) for each in PATHS]
    assert [each.path for each in select_files(files, path)] == selected


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        server.always = reply(200, "é")
        yield server


def listing(api: ScriptedServer, store: ScriptedServer, *files: dict[str, object]) -> None:
    """Let the API answer with a list, then with redirects to the store."""
    api.then(ok({"files": list(files)}))
    api.always = reply(307, location=f"{store.url}/content")


def test_files_are_saved_under_their_paths_with_their_times(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command, tmp_path: Path
) -> None:
    listing(api, store, *(file(path) for path in PATHS))
    result = swissbrain("files", "run_1", "-o", "results/")
    assert (result.code, result.out) == (0, "")
    assert result.err == "swissbrain: 6 files (12 bytes) saved in results/\n"
    saved = {
        str(path.relative_to(tmp_path / "results")) for path in (tmp_path / "results").rglob("*") if path.is_file()
    }
    assert saved == {path for path in PATHS if not path.startswith(".run")}
    assert (tmp_path / "results" / "a.csv").stat().st_mtime_ns == 1_790_000_000_123_000_000


def test_a_repeated_download_fetches_only_what_is_missing_or_has_changed(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command, tmp_path: Path
) -> None:
    files = [file("a"), file("b"), file("c")]
    listing(api, store, *files)
    assert swissbrain("files", "run_1", "-o", "results").code == 0
    (tmp_path / "results" / "a").unlink()
    os.utime(tmp_path / "results" / "b", (1, 1))
    listing(api, store, *files)
    before = len(store.requests)
    assert (
        "2 files (4 bytes) saved in results, 1 were there already" in swissbrain("files", "run_1", "-o", "results").err
    )
    assert len(store.requests) == before + 2


def test_a_file_that_cannot_be_saved_does_not_stop_the_others(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command, tmp_path: Path
) -> None:
    (tmp_path / "results" / "b").mkdir(parents=True)
    (tmp_path / "results" / "c").write_text("a file where a folder should be")
    listing(api, store, file("a"), file("b"), file("c/d"), file("e"))
    result = swissbrain("files", "run_1", "-o", "results")
    assert result.code == 2
    assert (tmp_path / "results" / "a").read_text() == (tmp_path / "results" / "e").read_text() == "é"
    assert [line.split(":")[1].strip() for line in result.err.splitlines()[:2]] == ["b", "c/d"]
    assert not list((tmp_path / "results").glob(".swissbrain-*"))


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", "link/x", "./a", "dangling"])
def test_nothing_is_written_outside_of_the_folder(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command, tmp_path: Path, path: str
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "results" / "dangling").symlink_to(tmp_path / "elsewhere" / "x")
    listing(api, store, file(path), file("good"))
    result = swissbrain("files", "run_1", "-o", "results")
    assert result.code == 2
    assert "its path leads out of the folder" in result.err
    assert (tmp_path / "results" / "good").exists()
    assert not (tmp_path / "x").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_pattern_without_a_folder_lists_what_it_selects(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command
) -> None:
    listing(api, store, *(file(path) for path in PATHS))
    shown = swissbrain("files", "run_1", "*/*.csv").out
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["out/b.csv", "out2/e.csv"]
    listing(api, store, file("a"))
    assert swissbrain("files", "run_1", "*.none").err == "swissbrain: no file of the run matches '*.none'\n"


@pytest.mark.parametrize("words", [(), ("a",), ("*",)])
def test_an_empty_path_is_not_the_current_folder(api: ScriptedServer, swissbrain: Command, words: tuple[str]) -> None:
    refused = swissbrain("files", "run_1", *words, "-o", "")
    assert refused == (2, "", "swissbrain: Invalid value for --output: the path is empty\n")
    assert api.requests == []


def test_a_store_that_refuses_one_file_is_named(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command
) -> None:
    store.always = page(403)
    listing(api, store, file("a"))
    result = swissbrain("files", "run_1", "-o", "results/")
    assert result.code == 2
    assert result.err.startswith("swissbrain: a: the object store refused 'a'")


def test_a_download_that_is_stopped_does_not_wait_for_a_silent_store(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, ended = threading.Event(), threading.Event()

    def save(_: object, path: str, to: Path, **__: object) -> None:
        if path == "silent":
            stopped.wait(5)
            ended.set()
        to.touch()

    monkeypatch.setattr(client, "save", save)
    files = [File(path=path, size_bytes=0, modified_ms=1) for path in ("a", "silent")]
    saving = save_files(client, "run_1", files, tmp_path)
    assert next(saving) == (files[0], True)
    saving.close()  # type: ignore[attr-defined]
    assert not ended.is_set()
    stopped.set()
