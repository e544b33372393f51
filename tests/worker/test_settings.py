"""Settings of a worker where the host lacks what their defaults need."""

import tempfile
from pathlib import Path

import pytest

from infra.settings import Env, SettingsError
from worker.settings import WorkerSettings


def test_a_worker_without_a_folder_for_temporary_files_needs_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", missing)
    assert WorkerSettings.from_env(Env({"WORKER_ROOT": "/scratch"})).root == Path("/scratch")
    with pytest.raises(SettingsError, match="WORKER_ROOT is not set"):
        WorkerSettings.from_env(Env({}))


def test_a_relative_root_is_below_the_folder_in_which_the_worker_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    monkeypatch.chdir(deleted)
    variables = Env({"WORKER_ROOT": "scratch"})
    assert WorkerSettings.from_env(variables).root == deleted / "scratch"
    deleted.rmdir()
    with pytest.raises(SettingsError, match="WORKER_ROOT is 'scratch', and the current folder does not exist"):
        WorkerSettings.from_env(variables)
