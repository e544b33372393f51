"""The page on log actions and the calls in the source."""

from tests.docs.log_calls import log_actions
from tests.docs.pages import DOCS, codes_in, rows


def documented() -> dict[str, tuple[set[str], set[str | None]]]:
    """Return level and fields of each action on the page, by name."""
    table = [row for row in rows(DOCS / "log-actions.md") if row[0].startswith("`")]
    return {name: ({row[1]}, {*codes_in(row[2])}) for row in table for name in codes_in(row[0])}


def test_the_page_has_every_action_and_no_other() -> None:
    assert set(documented()) == set(log_actions())


def test_the_page_says_the_level_and_the_fields_of_each_action() -> None:
    page = documented()
    source = {name: (action.levels, action.fields) for name, action in log_actions().items() if name in page}
    assert {name: described for name, described in page.items() if name in source} == source
