"""File tools on a real object store."""

import asyncio
import base64

import pytest

from infra.contract.errors import FileMissing, InvalidInput, LimitExceeded
from infra.contract.tools import parse_args
from tests.tools.conftest import FILE_BYTES
from tests.tools.kit import Kit
from worker.toolkit.base import ToolResult
from worker.tools.file_delete import FileDeleteResult
from worker.tools.file_list import FileListResult
from worker.tools.file_read import FileReadResult
from worker.tools.file_write import FileWriteResult

NAMES = ["a", "data/table.csv", "ü/日本/😀 x.txt", "a b+c%20&=?#.txt", "~", "-rf", "...", "x" * 255, "e\u0301"]


@pytest.mark.parametrize("path", NAMES)
async def test_a_file_is_written_read_listed_and_deleted(kit: Kit, path: str) -> None:
    stored = await kit.call("file_write", FileWriteResult, path=path, content="ünï\n")
    assert (stored.path, stored.size_bytes) == (path, 6)
    assert (kit.context.written, kit.context.deleted) == ([path], [])
    read = await kit.call("file_read", FileReadResult, path=path)
    assert read == FileReadResult(path=path, content="ünï\n", encoding="utf-8", size_bytes=6, truncated=False)
    listed = await kit.call("file_list", FileListResult)
    assert ([info.path for info in listed.files], listed.count) == ([path], 1)
    assert kit.context.lines == [("stdout", f"{6:>12}  {path}")]
    assert (await kit.call("file_delete", FileDeleteResult, path=path)).path == path
    assert kit.context.deleted == [path]
    assert (await kit.call("file_list", FileListResult)).count == 0


@pytest.mark.parametrize("tool", ["file_read", "file_delete"])
async def test_a_missing_file_is_named(kit: Kit, tool: str) -> None:
    with pytest.raises(FileMissing, match="no/such"):
        await kit.call(tool, ToolResult, path="no/such")
    assert not kit.context.changes


async def test_an_empty_file_is_written_and_read(kit: Kit) -> None:
    assert (await kit.call("file_write", FileWriteResult, path="empty", content="")).size_bytes == 0
    read = await kit.call("file_read", FileReadResult, path="empty", max_bytes=1)
    assert (read.content, read.size_bytes, read.truncated) == ("", 0, False)


async def test_writing_replaces_the_whole_file(kit: Kit) -> None:
    for content in ("a long first content", "short"):
        await kit.call("file_write", FileWriteResult, path="a", content=content)
    assert (await kit.call("file_read", FileReadResult, path="a")).content == "short"


async def test_bytes_are_written_and_read_as_base64(kit: Kit) -> None:
    data = bytes(range(256)) * 3
    text = base64.b64encode(data).decode()
    assert (await kit.call("file_write", FileWriteResult, path="b", content=text, encoding="base64")).size_bytes == 768
    read = await kit.call("file_read", FileReadResult, path="b")
    assert (read.encoding, base64.b64decode(read.content), read.truncated) == ("base64", data, False)
    cut = await kit.call("file_read", FileReadResult, path="b", max_bytes=200)
    assert (base64.b64decode(cut.content), cut.size_bytes, cut.truncated) == (data[:200], 200, True)


async def test_base64_may_have_line_ends(kit: Kit) -> None:
    data = bytes(range(256))
    text = base64.encodebytes(data).decode().replace("\n", "\r\n")
    assert (await kit.call("file_write", FileWriteResult, path="b", content=text, encoding="base64")).size_bytes == 256
    assert await kit.files.read("b") == data


@pytest.mark.parametrize("content", ["no base64!", "YQ", "YQ==YQ==", "ü", "YQ\0=="])
def test_invalid_base64_is_refused_before_the_run(content: str) -> None:
    with pytest.raises(InvalidInput, match="is not base64") as caught:
        parse_args("file_write", {"path": "b", "content": content, "encoding": "base64"}, at="$.plan[0]")
    assert caught.value.field == "$.plan[0].args.content"


@pytest.mark.parametrize("character", ["é", "日", "😀"])
async def test_truncation_within_a_character_still_returns_text(kit: Kit, character: str) -> None:
    await kit.call("file_write", FileWriteResult, path="t", content=character * 10)
    size = len(character.encode())
    for cut in range(1, size * 3 + 1):
        read = await kit.call("file_read", FileReadResult, path="t", max_bytes=cut)
        assert (read.encoding, read.content, read.truncated) == ("utf-8", character * (cut // size), True)
        assert read.size_bytes == len(read.content.encode())


async def test_a_file_that_ends_within_a_character_is_returned_as_base64(kit: Kit) -> None:
    text = base64.b64encode("é".encode()[:1]).decode()
    await kit.call("file_write", FileWriteResult, path="t", content=text, encoding="base64")
    assert (await kit.call("file_read", FileReadResult, path="t")).encoding == "base64"


async def test_truncation_does_not_hide_bytes_that_are_not_text(kit: Kit) -> None:
    await kit.files.write("t", b"abcdef\xff" + b"x" * 10)
    for cut in (7, 8, 9):
        assert (await kit.call("file_read", FileReadResult, path="t", max_bytes=cut)).encoding == "base64"


@pytest.mark.parametrize("step", [4, 5, 7])
async def test_parts_of_a_text_make_up_the_whole(kit: Kit, step: int) -> None:
    content = "aé日😀" * 4
    await kit.call("file_write", FileWriteResult, path="t", content=content)
    parts, offset = [], 0
    for _ in range(len(content.encode())):
        read = await kit.call("file_read", FileReadResult, path="t", max_bytes=step, offset=offset)
        assert (read.encoding, read.offset) == ("utf-8", offset)
        parts.append(read.content)
        offset += read.size_bytes
        if not read.truncated:
            break
    assert "".join(parts) == content


async def test_a_part_begins_with_a_whole_character(kit: Kit) -> None:
    await kit.call("file_write", FileWriteResult, path="t", content="😀a")
    begins = {}
    for offset in range(6):
        read = await kit.call("file_read", FileReadResult, path="t", offset=offset)
        begins[offset] = (read.offset, read.content)
    assert begins == {0: (0, "😀a"), 1: (4, "a"), 2: (4, "a"), 3: (4, "a"), 4: (4, "a"), 5: (5, "")}


async def test_a_part_within_the_last_character_is_empty(kit: Kit) -> None:
    await kit.call("file_write", FileWriteResult, path="t", content="a😀")
    read = await kit.call("file_read", FileReadResult, path="t", offset=3)
    assert (read.encoding, read.content, read.offset, read.truncated) == ("utf-8", "", 5, False)


async def test_a_part_of_bytes_begins_where_it_was_asked_for(kit: Kit) -> None:
    await kit.files.write("b", bytes(range(128, 256)))
    read = await kit.call("file_read", FileReadResult, path="b", offset=10, max_bytes=5)
    assert (base64.b64decode(read.content), read.offset, read.truncated) == (bytes(range(138, 143)), 10, True)


async def test_a_large_file_is_read_in_part(kit: Kit) -> None:
    await kit.files.write("large", b"0123456789" * 1_000_000)
    read = await kit.call("file_read", FileReadResult, path="large")
    assert (read.size_bytes, read.truncated) == (65_536, True)
    read = await kit.call("file_read", FileReadResult, path="large", max_bytes=1_000_000)
    assert len(read.content) == 1_000_000


async def test_a_listed_folder_excludes_files_outside(kit: Kit) -> None:
    for path in ("a/1", "a/b/2", "ab/3", "a.txt", "z"):
        await kit.call("file_write", FileWriteResult, path=path, content="x")
    listed = await kit.call("file_list", FileListResult, path="a")
    assert [info.path for info in listed.files] == ["a/1", "a/b/2"]
    assert (await kit.call("file_list", FileListResult, path="nowhere")).count == 0
    assert (await kit.call("file_list", FileListResult)).count == 5


async def test_a_long_list_is_truncated_and_counted(kit: Kit) -> None:
    await asyncio.gather(*(kit.files.write(f"n/{number:04}", b"") for number in range(520)))
    listed = await kit.call("file_list", FileListResult, path="n")
    assert (len(listed.files), listed.count, len(kit.context.lines)) == (500, 520, 500)
    assert listed.files[-1].path == "n/0499"


async def test_a_file_over_the_limit_is_rejected(kit: Kit) -> None:
    with pytest.raises(LimitExceeded, match=f"'big' has {FILE_BYTES + 1} bytes, a file may have at most {FILE_BYTES}"):
        await kit.files.write("big", b"x" * (FILE_BYTES + 1))


async def test_a_message_is_logged(kit: Kit) -> None:
    assert await kit.call("message", ToolResult, text="ünï\0\n") == ToolResult()
    assert kit.context.messages == ["ünï\0\n"]
