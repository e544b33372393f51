"""The demo: the first thing that a new user sees."""

import json
from pathlib import Path

from infra.commands.demo_tasks import FILES
from tests.support.scripted_model import scripted_model
from tests.tour.commands import swissbrain


def test_the_demo_shows_a_real_run_and_keeps_its_files(tmp_path: Path) -> None:
    shown = swissbrain(tmp_path, "demo")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert "are up after" in lines[0]
    assert lines[1].startswith("No model is configured, so the run follows the explicit plan")
    assert "LLM_BASE_URL, LLM_MODEL and LLM_API_KEY" in lines[1]
    for number in range(1, 7):
        assert any(f"step {number}  succeeded in" in line for line in lines)
    assert any("│ Kepler's third law holds within 2.5%" in line for line in lines)
    assert any(line.endswith("run succeeded") for line in lines)
    kept = tmp_path / ".swissbrain" / "demo"
    assert {path.name for path in kept.iterdir()} == {"planets.csv", "statistics.json", "orbits.svg", "report.html"}
    assert json.loads((kept / "statistics.json").read_text())["planets"] == 8
    assert [path.name for path in (tmp_path / ".swissbrain").iterdir()] == ["demo"]


def test_with_a_model_the_demo_is_a_prompt(tmp_path: Path) -> None:
    with scripted_model() as model:
        shown = swissbrain(tmp_path, "demo", variables=model)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "which the model 'scripted' plans and carries out" in shown.stdout.splitlines()[1]
    assert "6 exchanges with the model" in shown.stdout
    for number in range(1, 5):
        assert f"step {number}  succeeded in" in shown.stdout
    kept = tmp_path / ".swissbrain" / "demo"
    assert {path.name for path in kept.iterdir()} == FILES


def test_a_demo_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".swissbrain").write_text("not a folder")
    shown = swissbrain(tmp_path, "demo")
    assert shown.returncode == 2
    assert shown.stderr.startswith("swissbrain: ")
    assert "Traceback" not in shown.stderr + shown.stdout
