"""Plan builders: each returns a step that the contract accepts."""

import base64
import inspect
from pathlib import Path

import pytest

import swissbrain
from infra.contract.tools import TOOLS, parse_args
from swissbrain import (
    PlanStep,
    browser,
    code,
    file_delete,
    file_list,
    file_read,
    file_write,
    http_fetch,
    message,
    shell,
    step,
)

EVERY = [
    shell("seq 3"),
    shell("seq 3", timeout_s=5, name="numbers"),
    shell("pip download demo", network=("pypi.org:443", "*.pythonhosted.org:443")),
    code.python("print(1)"),
    code.node("console.log(1)", timeout_s=1.5),
    code.bash("echo"),
    file_write("a/b", "text"),
    file_write("a/b", b"\xff"),
    file_read("a"),
    file_read("a", max_bytes=10, offset=5),
    file_list(),
    file_list("a"),
    file_delete("a"),
    http_fetch("https://example.org/"),
    http_fetch("http://a:81/", method="POST", headers={"Accept": "*/*"}, body="x", save_as="a", timeout_s=5, name="b"),
    message("hello"),
    browser("open", url="https://example.org/", network=["example.org:443"], name="a page"),
    browser("type", selector="input", text="x", enter=True, timeout_s=5),
    browser("select", selector="select", values=("a", "b")),
    browser("screenshot", full_page=True, save_as="a.png"),
    browser("evaluate", script="1"),
    step("shell", command="x"),
]


@pytest.mark.parametrize("made", EVERY, ids=lambda made: made.tool)
def test_the_contract_accepts_every_step(made: PlanStep) -> None:
    parse_args(made.tool, made.args, at="$")
    assert None not in made.args.values()


def test_each_tool_has_a_builder() -> None:
    assert {made.tool for made in EVERY} == {*TOOLS}
    for tool in TOOLS:
        assert hasattr(swissbrain, tool)


def test_each_argument_of_a_tool_is_an_argument_of_its_builder() -> None:
    for tool, args in TOOLS.items():
        builder = code.python if tool == "code" else getattr(swissbrain, tool)
        # `language` and `encoding` follow from the function and from the type of the content.
        wanted = {*args.__struct_fields__} - {"language", "encoding"} | {"name"}
        assert {*inspect.signature(builder).parameters} == wanted, tool


def test_a_program_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "report.py"
    path.write_bytes(b"\xef\xbb\xbfprint('\xc3\xa9')\n")
    made = code.python(path)
    assert made.args == {"language": "python", "source": "print('é')\n"}
    assert made.name == "report.py"
    assert code.python(path, name="report").name == "report"
    path.write_bytes(b"a\r\nb\rc\n")
    assert code.bash(path).args["source"] == "a\r\nb\rc\n"
    with pytest.raises(FileNotFoundError):
        code.node(tmp_path / "none")


def test_bytes_are_written_as_base64() -> None:
    made = file_write("a", b"\xff\0")
    assert base64.b64decode(made.args["content"]) == b"\xff\0"
    assert made.args["encoding"] == "base64"
