"""Times of cron expressions, also where a time zone changes its clocks."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from infra.contract.errors import InvalidInput
from infra.cron import Cron

ZURICH = "CRON_TZ=Europe/Zurich"


def times(text: str, after: str, count: int) -> list[str]:
    ms = int(datetime.fromisoformat(after).timestamp() * 1000)
    zone = ZoneInfo("Europe/Zurich")
    return [
        datetime.fromtimestamp(at / 1000, zone).isoformat(timespec="minutes")
        for at in Cron.parse(text).following(ms, count)
    ]


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("0 8 * * MON-FRI", "2026-11-27T08:00+00:00", ["2026-11-30T09:00+01:00", "2026-12-01T09:00+01:00"]),
        (f"{ZURICH} 0 8 * * 1-5", "2026-11-27T07:00+00:00", ["2026-11-30T08:00+01:00", "2026-12-01T08:00+01:00"]),
        # The clocks go forward at 02:00: the time that is skipped is due right after.
        (f"{ZURICH} 30 2 * * *", "2026-03-28T12:00+00:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        # They go back at 03:00: the time that is repeated is due once, whichever of the two hours it is now.
        (f"{ZURICH} 30 2 * * *", "2026-10-24T12:00+00:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        (f"{ZURICH} 30 2 * * *", "2026-10-25T00:30+00:00", ["2026-10-26T02:30+01:00"]),
        (f"{ZURICH} 30 2 * * *", "2026-10-25T01:00+00:00", ["2026-10-26T02:30+01:00"]),
        (f"{ZURICH} */30 2 * * *", "2026-10-25T00:30+00:00", ["2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00"]),
        ("0 0 29 2 *", "2026-10-24T12:00+00:00", ["2028-02-29T01:00+01:00"]),
    ],
)
def test_following_times(text: str, after: str, expected: list[str]) -> None:
    assert times(text, after, len(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "0 0 31 2 *",
        "0 0 L * *",
        "0 0 * * 1#2",
        "0 0 ? * *",
        "0 0 * * FOO",
        "@daily",
        "CRON_TZ=../../etc/passwd * * * * *",
        "CRON_TZ=Europe * * * * *",
        "CRON_TZ=Mars/Olympus * * * * *",
        "CRON_TZ=localtime * * * * *",
        "CRON_TZ=right/Europe/Zurich * * * * *",
        f"{'0,' * 200}0 * * * *",
    ],
)
def test_an_expression_that_is_not_plain_cron_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"."):
        Cron.parse(text)


def test_the_text_for_qstash_has_single_spaces() -> None:
    assert str(Cron("  0 \t 8  * * MON\n", "Europe/Zurich")) == f"{ZURICH} 0 8 * * MON"
