"""Plans in files."""

import io
import json
from pathlib import Path

import pytest

from infra.contract.runs import RunSpec
from swissbrain.cli.plan_file import PlanError, read_plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "planets"


def test_the_shipped_plan_is_valid() -> None:
    import msgspec

    plan = read_plan(EXAMPLE / "plan.json")
    msgspec.convert({"plan": plan}, RunSpec).check()
    assert plan[0]["args"]["content"] == (EXAMPLE / "planets.csv").read_text()
    assert [step["tool"] for step in plan] == ["file_write", "code", "code", "code", "shell", "file_list"]


def test_a_file_reference_is_replaced_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text of a\n")
    (tmp_path / "plan.json").write_text(json.dumps({"plan": [{"tool": "x", "args": {"deep": [{"$file": "a.txt"}]}}]}))
    assert read_plan(tmp_path / "plan.json") == [{"tool": "x", "args": {"deep": ["text of a\n"]}}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ('[{"tool": "x", "tool": "y"}]', "is not JSON: the key 'tool' is there twice"),
        ('"x"', "holds no list of steps"),
        ('{"plan": {}}', "holds no list of steps"),
        ('["x"]', "holds no list of steps"),
        ('[{"args": {"$file": "none"}}]', "none: No such file or directory"),
    ],
)
def test_a_malformed_plan_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(PlanError, match=message) as caught:
        read_plan(tmp_path / "plan.json")
    assert "\n" not in str(caught.value)


def test_steps_may_have_the_keys_of_other_steps(tmp_path: Path) -> None:
    for name, text in (("plan.json", '[{"a": {"b": 1}}, {"a": {"b": 1}}]'), ("plan.yaml", "- a: {b: 1}\n- a: {b: 1}")):
        (tmp_path / name).write_text(text)
        assert read_plan(tmp_path / name) == [{"a": {"b": 1}}, {"a": {"b": 1}}]


def test_a_missing_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read .*plan.json: No such file or directory"):
        read_plan(tmp_path / "plan.json")


YAML = """
- tool: shell   # a comment
  name: count
  timeout_s: 90
  args:
    command: |
      wc -l data.csv
      echo "done"
- {tool: message, args: {text: {$file: t.txt}}}
"""


@pytest.mark.parametrize("name", ["plan.yaml", "plan.YML"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_plan_may_be_yaml(tmp_path: Path, name: str, mark: bytes) -> None:
    (tmp_path / "t.txt").write_text("text\n")
    (tmp_path / name).write_bytes(mark + YAML.encode())
    assert read_plan(tmp_path / name) == [
        {"tool": "shell", "name": "count", "timeout_s": 90, "args": {"command": 'wc -l data.csv\necho "done"\n'}},
        {"tool": "message", "args": {"text": "text\n"}},
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("2026-11-30", "2026-11-30"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("12", 12),
        ("-1.5e3", -1500.0),
        ("1.0", 1.0),
        ("null", None),
        ("", None),
        ("~", None),
        ("<<", "<<"),
        ("'12'", "12"),
    ],
)
def test_yaml_has_the_values_of_json(tmp_path: Path, text: str, value: object) -> None:
    (tmp_path / "plan.yaml").write_text(f"- args:\n    x: {text}\n")
    assert read_plan(tmp_path / "plan.yaml") == [{"args": {"x": value}}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a: [", "is not YAML"),
        ("- &a {x: 1}\n- *a", "aliases are not allowed"),
        ("- 1: x", "is not text"),
        ("- x: .inf", "is no number of JSON"),
        ("- x: .nan", "is no number of JSON"),
        ("- x: !!binary YQ==", "has the type bytes"),
        ("- x: !!timestamp 2026-11-30", "has the type date"),
        (
            "- tool: x\n  args: {}\n  tool: y",
            "the key 'tool' is there twice in one mapping in \"<unicode string>\", line 3",
        ),
        ("- args: {a: {b: 1, 'b': 2}}", "the key 'b' is there twice in one mapping in \"<unicode string>\", line 1"),
        ("- ? [a]\n  : 1\n  ? [a]\n  : 2", "is not YAML"),
        ("- !!map [a]", "is not YAML"),
        ("- x: !!python/object/apply:os.system [exit]", "is not YAML"),
        ("- x: !!bool maybe", "is not YAML: a value does not have the form that its tag"),
        ("- x: !!timestamp now", "is not YAML: a value does not have the form that its tag"),
        ('- x: !!int ""', "is not YAML: a value does not have the form that its tag"),
        ("--- 1\n--- 2", "is not YAML"),
        ("- x: {$file: null}", "$file is null, and not the path of a file"),
        ("- x: {$file: [a]}", '$file is ["a"], and not the path of a file'),
        ('- x: {$file: "a\\0b"}', "null byte"),
        ("just text", "holds no list of steps"),
        ("[" * 20_000, "is nested too deeply"),
        ("- x: " + "y" * 1_100_000, "has more than 1,048,576 bytes"),
    ],
)
def test_malformed_yaml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError) as caught:
        read_plan(tmp_path / "plan.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ['\ufeff[{"tool": "x"}]', "- tool: x\n", '{"plan": [{"tool": "x"}]}', "plan:\n- tool: x"]
)
def test_a_plan_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read_plan(Path("-")) == [{"tool": "x"}]


def test_a_file_may_have_the_name_that_means_standard_input_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("text\n")
    Path("plan.json").write_text('[{"args": {"text": {"$file": "-"}}}]')
    assert read_plan(Path("plan.json")) == [{"args": {"text": "text\n"}}]


def test_a_file_without_an_end_is_not_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('[{"args": {"$file": "/dev/zero"}}]')
    with pytest.raises(PlanError, match="--file sends large files"):
        read_plan(tmp_path / "plan.json")
