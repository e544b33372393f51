"""The tool in "Write your own tool", exactly as it is printed."""

import sys
from types import ModuleType
from typing import Any

import pytest

from infra.contract import tools
from infra.contract.errors import InvalidInput
from infra.contract.execution import LineEnd
from tests.docs.pages import DOCS, blocks
from worker.toolkit.base import Tool, ToolFailed

ARGUMENTS, TOOL = blocks(DOCS / "changing-the-code.md", "python")


class Files:
    """Workspace with two files."""

    async def read(self, path: str, max_bytes: int | None = None) -> bytes:
        return {"text.txt": b"a word or two\n", "binary": b"\xff\xfe"}[path][:max_bytes]


class Context:
    """ToolContext that records the output."""

    def __init__(self) -> None:
        self.files = Files()
        self.lines: list[str] = []

    async def output(
        self, _stream: str, text: str, *, more: bool = False, replaces_line: bool = False, line_end: LineEnd = "\n"
    ) -> None:
        assert not more
        self.lines.append(text)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Return the tool after both blocks have been executed where the page says that they go."""
    arguments: dict[str, Any] = {**vars(tools)}
    exec(compile(ARGUMENTS, "arguments", "exec"), arguments)
    monkeypatch.setattr(tools, "WordCountArgs", arguments["WordCountArgs"], raising=False)
    monkeypatch.setattr(tools, "TOOLS", {**tools.TOOLS, "word_count": arguments["WordCountArgs"]})
    module = ModuleType("worker.tools.word_count")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(TOOL, "tool", "exec"), vars(module))
    made: Tool = vars(module)["TOOL"]
    return made


async def test_the_tool_counts_words(tool: Tool) -> None:
    context: Any = Context()
    args = tools.parse_args(tool.name, {"path": "text.txt", "min_chars": 3}, at="$")
    result: Any = await tool.run(args, context)
    assert (result.path, result.words) == ("text.txt", 2)
    assert context.lines == ["2 words in text.txt"]


async def test_the_tool_fails_with_its_code_if_the_file_is_not_text(tool: Tool) -> None:
    context: Any = Context()
    with pytest.raises(ToolFailed, match="not UTF-8") as failed:
        await tool.run(tools.parse_args(tool.name, {"path": "binary"}, at="$"), context)
    assert failed.value.code == "not_text"


@pytest.mark.parametrize(
    "args", [{}, {"path": "/etc/passwd"}, {"path": "text.txt", "min_chars": 0}, {"path": "a", "x": 1}]
)
def test_the_api_rejects_wrong_arguments(tool: Tool, args: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        tools.parse_args(tool.name, args, at="$")
