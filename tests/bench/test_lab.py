"""Tables of the benchmarks."""

import sys
import sysconfig

import pytest

from bench.lab import table


@pytest.mark.parametrize(
    ("arguments", "word"),
    [("'--with-lto' '--enable-optimizations'", "with"), ("'--prefix=/x'", "without"), (None, "without")],
)
def test_a_table_names_the_interpreter_and_its_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str | None, word: str
) -> None:
    monkeypatch.setitem(sysconfig.get_config_vars(), "CONFIG_ARGS", arguments)
    table("Title", ["measure", "value"], [["a", "b"]])
    line = f"Python {sys.version}, configured {word} --enable-optimizations\n"
    assert capsys.readouterr().out.endswith(line)
