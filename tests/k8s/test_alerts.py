"""Alerts of `k8s/monitoring`: promtool checks the rules, lets each fire and not fire; the runbook explains each."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.check_manifests import Object
from tests.docs.pages import DOCS
from tests.k8s.alert_cases import CASES, AlertCase
from tests.k8s.rendering import source

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="install promtool, which is in Debian's package prometheus"
)


def rule_groups() -> list[Object]:
    (rules,) = (each for each in source("monitoring/rules.yaml") if each["kind"] == "PrometheusRule")
    return list(rules["spec"]["groups"])


def alerts() -> dict[str, Object]:
    """Return the rules of alerts by name."""
    return {rule["alert"]: rule for group in rule_groups() for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str | Path) -> str:
    """Return the output of promtool, which must succeed."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expected(case: AlertCase) -> list[Mapping[str, Any]]:
    rule = alerts()[case.alert]
    annotations = {"summary": case.summary, "runbook": rule["annotations"]["runbook"]}
    return [{"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": annotations}]


def written_tests() -> list[Mapping[str, Any]]:
    """Return the tests of all cases in the form of promtool."""
    return [
        {
            "name": f"{case.alert} {'fires' if fires else 'is quiet'}",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [
                {"alertname": case.alert, "eval_time": case.at, "exp_alerts": expected(case) if fires else []}
            ],
        }
        for case in CASES
        for fires, series in [(True, case.fires), *((False, each) for each in case.quiet)]
    ]


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}))
    promtool("check", "rules", tmp_path / "rules.yaml")
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": written_tests()}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", tmp_path / "tests.yaml")


def test_each_alert_has_a_case() -> None:
    assert [case.alert for case in CASES] == list(alerts())
    assert all(case.quiet for case in CASES)


def test_the_runbook_explains_each_alert_and_no_other() -> None:
    text = (DOCS / "runbook.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    found = {section.partition("\n")[0]: section for section in sections if section.startswith("SwissBrain")}
    assert list(found) == list(alerts())
    for name, section in found.items():
        for part in ("**Meaning.**", "**Look.**", "**Do.**"):
            assert part in section, f"{name} lacks {part}"
        assert alerts()[name]["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert f"Severity: {alerts()[name]['labels']['severity']}" in section
