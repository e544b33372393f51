"""The page about the Python client: its programs are run, in order, against a dev stack, and its lists are complete."""

from pathlib import Path

import pytest

from infra.devstack.stack import DevStack
from swissbrain import AsyncClient, Client
from tests.docs.pages import DOCS, blocks, codes_in, rows

PAGE = DOCS / "client.md"


@pytest.fixture
def folder(dev_stack: DevStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, in an environment that names the stack."""
    monkeypatch.chdir(tmp_path)
    for name in ("SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN"):
        monkeypatch.setenv(name, dev_stack.env[name])
    return tmp_path


def test_the_programs_of_the_page_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    programs = blocks(PAGE, "python")
    assert len(programs) == 10
    for number, program in enumerate(programs):
        exec(compile(program, f"program {number} of {PAGE.name}", "exec"), names)
    client = names["client"]
    assert isinstance(client, Client)
    client.close()
    shown = capsys.readouterr().out
    assert shown.startswith("1\n2\n3\n")
    assert (folder / "copy.csv").read_bytes() == (folder / "people.csv").read_bytes()


def test_the_page_lists_every_method() -> None:
    lists = {cells[0]: codes_in(cells[1]) for cells in rows(PAGE) if len(cells) == 2}
    listed = " ".join(
        names for noun in ("runs", "logs", "schedules", "webhooks", "files") for names in lists[noun]
    ).split()
    public = {name for name in dir(AsyncClient) if not name.startswith("_")} - {"from_env", "close"}
    assert (len(listed), {*listed}) == (len(public), public)
