"""Texts for models: sections without a value are left out, and values are inserted unchanged."""

import pytest

from worker.agent.prompts import VERSION, render


def test_a_section_without_a_value_is_left_out() -> None:
    assert render("task", prompt="Sum up.", files="") == "Sum up."
    assert "## Files" in render("task", prompt="Sum up.", files="- a.csv")
    whole = render("system", marker="data-1", instructions="Be brief.")
    assert whole.endswith("Be brief.")
    assert "Instructions of the user" not in render("system", marker="data-1", instructions="")


def test_values_are_inserted_as_they_are() -> None:
    assert render("task", prompt="Costs $5, $files, ${x}\n## Title", files="") == "Costs $5, $files, ${x}\n## Title"


def test_each_value_of_a_template_must_be_given_and_no_other() -> None:
    with pytest.raises(KeyError, match="uses the values"):
        render("problem")
    with pytest.raises(KeyError, match="uses the values"):
        render("nudge", count="1")


def test_the_version_is_short_and_stable() -> None:
    assert len(VERSION) == 12
    assert int(VERSION, 16) >= 0
