"""Files of this machine that a run begins with: which ones, and under which paths."""

import os
from pathlib import Path

import pytest

from swissbrain.cli.inputs import MAX_FILES, InputError, input_files


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("data.csv", "a=b.csv", "in/x.csv", "in/deep/y.csv", "in/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("texts", "paths"),
    [
        (["data.csv"], {"data.csv": "data.csv"}),
        (["./in/x.csv"], {"x.csv": "in/x.csv"}),
        (["data.csv=in/table.csv"], {"in/table.csv": "data.csv"}),
        (["data.csv=in/"], {"in/data.csv": "data.csv"}),
        (["a=b.csv"], {"a=b.csv": "a=b.csv"}),
        (["a=b.csv=c.csv"], {"c.csv": "a=b.csv"}),
        (["in"], {"in/.hidden": "in/.hidden", "in/deep/y.csv": "in/deep/y.csv", "in/x.csv": "in/x.csv"}),
        (["in/"], {".hidden": "in/.hidden", "deep/y.csv": "in/deep/y.csv", "x.csv": "in/x.csv"}),
        (["in/deep=out"], {"out/y.csv": "in/deep/y.csv"}),
        (["in/deep/=out"], {"out/y.csv": "in/deep/y.csv"}),
        (["in/deep/.."], {".hidden": "in/.hidden", "deep/y.csv": "in/deep/y.csv", "x.csv": "in/x.csv"}),
        (["data.csv", "in/x.csv"], {"data.csv": "data.csv", "x.csv": "in/x.csv"}),
        ([], {}),
    ],
)
def test_files_and_folders_get_their_paths(texts: list[str], paths: dict[str, str]) -> None:
    found = input_files(texts)
    assert {path: os.path.normpath(local) for path, local in found.items()} == paths


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["none"], "cannot read none: No such file"),
        (["none=x"], "cannot read none: No such file"),
        (["data.csv", "in/x.csv=data.csv"], "would both be 'data.csv'"),
        (["data.csv", "data.csv"], "would both be 'data.csv'"),
        (["empty"], "holds no file"),
        (["many"], f"at most {MAX_FILES} files"),
        (["odd"], "is no regular file"),
        (["pipe"], "it is no regular file and no folder"),
        (["a\0b"], "cannot read"),
        ([""], "'' names no file"),
        (["=x"], "'=x' names no file"),
    ],
)
def test_what_cannot_be_sent_is_named(folder: Path, texts: list[str], message: str) -> None:
    for name in ("empty", "many", "odd"):
        (folder / name).mkdir()
    for number in range(MAX_FILES + 1):
        (folder / "many" / str(number)).touch()
    os.mkfifo(folder / "odd" / "pipe")
    os.mkfifo(folder / "pipe")
    with pytest.raises(InputError) as caught:
        input_files(texts)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_link_to_a_folder_is_not_followed(folder: Path) -> None:
    (folder / "in" / "loop").symlink_to(folder)
    (folder / "in" / "link.csv").symlink_to(folder / "data.csv")
    assert set(input_files(["in/"])) == {".hidden", "deep/y.csv", "x.csv", "link.csv"}


def test_the_largest_number_of_files_is_allowed(folder: Path) -> None:
    (folder / "many").mkdir()
    for number in range(MAX_FILES):
        (folder / "many" / str(number)).touch()
    assert len(input_files(["many"])) == MAX_FILES
