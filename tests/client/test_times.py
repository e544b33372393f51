"""Durations and times as people write them."""

import time

import pytest
import typer

from swissbrain.cli.terminal import duration
from swissbrain.cli.times import seconds, time_ms


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("0", 0),
        ("1e2", 100),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172_800),
        ("250ms", 0.25),
        ("1.5H", 5400),
        ("1m 1s", 61),
    ],
)
def test_a_duration_is_in_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "5 minutes", "-1", "-5m", "nan", "inf", "1e400", "m", "1h-2m", "5mm", f"{10**400}s", f"1h{10**400}m"],
)
def test_what_is_no_duration_is_rejected(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a duration such as"):
        seconds(text)


@pytest.mark.parametrize("ms", [5, 1500, 61_000, 3_660_000, 90_000_000])
def test_a_duration_that_was_shown_can_be_given(ms: int) -> None:
    assert seconds(duration(ms)) == pytest.approx(ms / 1000, rel=0.02)


def test_a_time_is_a_date_or_a_duration_before_now() -> None:
    assert time_ms("2026-11-30T02:00Z") == 1_796_004_000_000
    assert time_ms("2h") == pytest.approx(time.time() * 1000 - 7_200_000, abs=5000)
    assert time_ms(f"{10**300}d") == time_ms("1" + "0" * 308 + "s") == 0
    with pytest.raises(typer.BadParameter, match="nor a duration before now"):
        time_ms("yesterday")
