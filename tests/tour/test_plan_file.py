"""Plans in files."""

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


def test_a_missing_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read .*plan.json: No such file or directory"):
        read_plan(tmp_path / "plan.json")
