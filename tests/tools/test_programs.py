"""Tools `shell` and `code` in the real sandbox."""

import shutil

import pytest

from infra.contract.errors import ExecutorUnavailable
from infra.local_executor import LocalExecutor, machine, sandbox
from infra.scratch_root import ScratchRoot
from tests.tools.kit import Kit
from worker.toolkit.base import ToolResult
from worker.toolkit.execution import LOGGED_BYTES, TAIL_BYTES, ExecutionResult
from worker.tools.file_read import FileReadResult

SOURCES = {
    "python": ("import sys\nprint('out ü')\nprint('err', file=sys.stderr)", "import sys; sys.exit(7)"),
    "bash": ("[[ 1 == 1 ]] && echo 'out ü'; echo err >&2", "exit 7"),
    "node": ("console.log('out ü'); console.error('err')", "process.exit(7)"),
}


def needs(language: str) -> None:
    if language != "python" and shutil.which(language, path=machine.SYSTEM_PATH) is None:
        pytest.skip(f"{language} is not installed here")


@pytest.mark.parametrize("language", sorted(SOURCES))
async def test_code_runs_in_its_language(kit: Kit, language: str) -> None:
    needs(language)
    good, bad = SOURCES[language]
    result = await kit.call("code", ExecutionResult, language=language, source=good)
    assert (result.exit_code, result.stdout_tail, result.stderr_tail) == (0, "out ü\n", "err\n")
    assert (result.stdout_bytes, result.stderr_bytes, result.kept) == (7, 4, ())
    assert sorted(kit.context.lines) == [("stderr", "err"), ("stdout", "out ü")]
    code, message, partial = await kit.failed("code", language=language, source=bad)
    assert (code, message) == ("exit_code", "exit code 7")
    assert partial
    assert partial.exit_code == 7


@pytest.mark.parametrize("language", sorted(SOURCES))
async def test_a_syntax_error_fails_the_call_with_its_message(kit: Kit, language: str) -> None:
    needs(language)
    code, message, partial = await kit.failed("code", language=language, source="this is (((\0 no program")
    assert code == "exit_code"
    assert partial
    assert partial.stderr_tail
    assert message.startswith(f"exit code {partial.exit_code}: ")


@pytest.mark.parametrize("language", sorted(SOURCES))
async def test_the_longest_source_is_executed(kit: Kit, language: str) -> None:
    needs(language)
    comment = "//" if language == "node" else "#"
    source = f"{comment}{'x' * 199_950}\n{'console.log(1)' if language == 'node' else 'echo 1'}"
    source = source.replace("echo 1", "print(1)") if language == "python" else source
    assert (await kit.call("code", ExecutionResult, language=language, source=source)).stdout_tail == "1\n"


@pytest.mark.parametrize("language", ["node", "bash"])
async def test_a_missing_language_is_named(kit: Kit, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SYSTEM_PATH", "/nowhere")
    with pytest.raises(ExecutorUnavailable, match=f"'{language}' is not installed on this worker's host"):
        await kit.call("code", ToolResult, language=language, source="1")


async def test_shell_has_the_workspace_as_its_folder(kit: Kit) -> None:
    assert (await kit.shell("pwd; echo $HOME; ls -a")).stdout_tail == "/workspace\n/workspace\n.\n..\n"


async def test_modules_of_the_workspace_can_be_imported(kit: Kit) -> None:
    await kit.files.write("mine/helper.py", b"answer = 42\n")
    source = "from mine.helper import answer\nimport json, ssl, sqlite3\nprint(answer)"
    assert (await kit.call("code", ExecutionResult, language="python", source=source)).stdout_tail == "42\n"


async def test_a_program_killed_by_a_signal_fails_with_128_plus_its_number(kit: Kit) -> None:
    code, message, partial = await kit.failed("shell", command="echo dying >&2; kill -9 $$")
    assert (code, message) == ("exit_code", "exit code 137: dying")
    assert partial


async def test_the_reason_is_found_above_a_long_stack_trace(kit: Kit) -> None:
    source = "import sys; sys.exit('E: boom\\n' + '    at f (x.java:1)\\n' * 1000)"
    _, message, _ = await kit.failed("code", language="python", source=source)
    assert message == "exit code 1: E: boom"


async def test_a_program_without_a_timeout_has_the_time_that_is_left(kit: Kit) -> None:
    kit.time_left_s = 0.7
    code, message, _ = await kit.failed("shell", command="sleep 1000")
    assert (code, message.partition(" (")[0]) == ("timeout", "killed after its timeout of 0.7 s")
    assert "left of the `timeout_s` of the step or of the run" in message
    code, message, _ = await kit.failed("code", language="python", source="import time; time.sleep(1000)")
    assert (code, message.partition(" (")[0]) == ("timeout", "killed after its timeout of 0.7 s")


async def test_a_timeout_keeps_output_and_files_so_far(kit: Kit) -> None:
    code, message, partial = await kit.failed("shell", command="echo begun; echo x > half; sleep 1000", timeout_s=3)
    assert (code, message.partition(" (")[0]) == ("timeout", "killed after its timeout of 3 s")
    assert "`timeout_s` in the arguments of the step" in message
    assert partial
    assert (partial.exit_code, partial.stdout_tail) == (None, "begun\n")
    assert kit.context.lines == [("stdout", "begun")]
    assert kit.context.written == ["half"]
    assert await kit.files.read("half") == b"x\n"


async def test_output_beyond_the_limit_is_stored_as_a_file(kit: Kit) -> None:
    result = await kit.shell("seq 1 100000; echo problem >&2")
    assert result.stdout_bytes == 588_895
    assert result.kept == (".run/step-0.stdout", ".run/step-0.stderr")
    assert result.stdout_tail.endswith("99999\n100000\n")
    assert len(result.stdout_tail) == TAIL_BYTES
    whole = "".join(f"{number}\n" for number in range(1, 100_001))
    assert await kit.files.read(".run/step-0.stdout") == whole.encode()
    assert await kit.files.read(".run/step-0.stderr") == b"problem\n"
    # A busy host may pause a program in the middle of a line, which is then logged in parts.
    parts = zip(kit.context.lines, kit.context.unfinished, strict=True)
    logged = "".join(text + ("" if more else "\n") for (stream, text), more in parts if stream == "stdout")
    logged, _, last = logged.removesuffix("\n").rpartition("\n")
    assert last == "… output truncated; complete output: .run/step-0.stdout"
    assert whole.startswith(logged)
    assert LOGGED_BYTES - 10 < len(logged) <= LOGGED_BYTES
    read = await kit.call("file_read", FileReadResult, path=".run/step-0.stdout", max_bytes=2)
    assert read.content == "1\n"


async def test_a_long_line_is_logged_in_parts(kit: Kit) -> None:
    await kit.shell("head -c 10000 /dev/zero | tr '\\0' x; echo; echo y")
    assert "".join(text for _, text in kit.context.lines[:3]) == "x" * 10_000
    assert kit.context.lines[3:] == [("stdout", "y")]
    assert kit.context.unfinished == [True, True, False, False]


async def test_the_stored_output_of_earlier_calls_cannot_be_changed(kit: Kit) -> None:
    await kit.shell("seq 1 100000")
    await kit.shell("cat .run/step-0.stdout | tail -n 1; echo mine > .run/step-0.stdout; echo new > .run/planted")
    assert kit.context.lines == [("stdout", "100000")]
    assert kit.context.written == []
    await kit.shell("ls .run")
    assert kit.context.lines == [("stdout", "step-0.stdout")]
    assert len(await kit.files.read(".run/step-0.stdout")) == 588_895


async def test_the_output_of_a_failed_program_is_stored(kit: Kit) -> None:
    code, _, partial = await kit.failed("shell", command="seq 1 100000 >&2; exit 9")
    assert code == "exit_code"
    assert partial
    assert partial.kept == (".run/step-0.stderr",)
    assert (await kit.files.read(".run/step-0.stderr")).endswith(b"\n100000\n")


async def test_a_flood_of_output_is_stored_up_to_the_limit(kit: Kit) -> None:
    line = "a line of some length, as most are in the output of programs"
    result = await kit.shell(f"yes '{line}' | head -c 100M")
    assert result.stdout_bytes == 100 * 1024 * 1024
    kept = await kit.files.read(".run/step-0.stdout")
    assert len(kept) == 16 * 1024 * 1024
    assert kept.startswith(line.encode())


async def test_output_that_is_not_text_is_shown_with_replacement_characters(kit: Kit) -> None:
    result = await kit.shell("printf 'a\\377\\0b'; printf '\\303' >&2")
    assert (result.stdout_tail, result.stderr_tail) == ("a�\0b", "�")
    assert sorted(kit.context.lines) == [("stderr", "�"), ("stdout", "a�\0b")]


async def test_tools_run_without_a_sandbox_on_request(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    kit.executor = LocalExecutor(ScratchRoot(kit.scratch.with_name("unsafe")), unsafe=True)
    await kit.files.write("in.txt", b"content")
    assert (await kit.shell("cat in.txt; echo more > out.txt")).stdout_tail == "content"
    assert await kit.files.read("out.txt") == b"more\n"
    assert [record.message for record in caplog.records] == ["tool.unsandboxed"]


async def test_a_missing_sandbox_is_reported_with_how_to_install_it(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ExecutorUnavailable(f"there is no bwrap on this host; {sandbox.INSTALL}")

    monkeypatch.setattr(sandbox, "find_bwrap", missing)
    for tool, args in (("shell", {"command": "true"}), ("code", {"language": "python", "source": "1"})):
        with pytest.raises(ExecutorUnavailable, match="apt-get install bubblewrap"):
            await kit.call(tool, ToolResult, **args)


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("printf 'a\\nb'; printf 'c\\r\\n' >&2", ()),
        ("printf '\\303\\274\\n'", ()),
        ("printf '\\377\\n'", (".run/step-0.stdout",)),
        ("printf '1\\r2\\n' >&2; echo out", (".run/step-0.stdout", ".run/step-0.stderr")),
        ("printf 'a\\r\\r\\n'", (".run/step-0.stdout",)),
        ("true", ()),
    ],
)
async def test_output_that_the_log_cannot_repeat_byte_for_byte_is_stored(
    kit: Kit, command: str, kept: tuple[str, ...]
) -> None:
    assert (await kit.shell(command)).kept == kept


@pytest.mark.parametrize(("size", "head_bytes"), [(4096, 0), (5000, 904), (7168, 3072), (50_000, 3072)])
async def test_a_model_gets_the_head_of_long_output_and_a_file_with_all(kit: Kit, size: int, head_bytes: int) -> None:
    kit.for_model = True
    whole = "".join(f"{number:>7}\n" for number in range(size // 8))
    result = await kit.shell(f"seq -f %7.0f 0 {size // 8 - 1}")
    assert (result.stdout_head, result.stdout_tail) == (whole[:head_bytes], whole[-4096:])
    assert result.kept == ((".run/step-0.stdout",) if head_bytes else ())
    if result.kept:
        assert await kit.files.read(result.kept[0]) == whole.encode()
    kit.for_model = False
    result = await kit.shell(f"seq -f %7.0f 0 {size // 8 - 1}")
    assert (result.stdout_head, result.kept) == ("", ())
