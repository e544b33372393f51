"""Selection of several runs: by ids, from standard input, or by filters."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from swissbrain.cli.terminal import note

if TYPE_CHECKING:
    from swissbrain import Client

STDIN = "-"
MAX_LINES = 1_000_000
MAX_LINE_CHARS = 1_000_000


@dataclass(frozen=True)
class RunFilters:
    """Filters for runs; None and an empty mapping select every run."""

    status: str | None = None
    error: str | None = None
    created_after_ms: int | None = None
    created_before_ms: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self != RunFilters()

    def arguments(self, statuses: Sequence[str] = ()) -> dict[str, Any]:
        """Return the arguments of `Client.runs`; `statuses` are those without a status or an error code."""
        status = self.status if self.status is not None else ["failed"] if self.error else list(statuses) or None
        return {
            "status": status,
            "error": self.error,
            "created_after_ms": self.created_after_ms,
            "created_before_ms": self.created_before_ms,
            "metadata": self.metadata or None,
        }


def select_runs(
    client: "Client", run_ids: Sequence[str] | None, filters: RunFilters, statuses: Sequence[str]
) -> list[str]:
    """Return the given ids, or the ids of the runs that the filters select. Raises BadParameter.

    The list is complete before anything is changed, because a change may move a run out of what the filters select.
    """
    if bool(run_ids) == bool(filters):
        raise typer.BadParameter("give the ids of runs, - for those on standard input, or filters such as --error")
    if run_ids:
        return given_ids(run_ids)
    found = client.runs(**filters.arguments(statuses), on_unreadable=warn_of_unreadable)
    return list(dict.fromkeys(run.run_id for run in found))


def given_ids(texts: Iterable[str]) -> list[str]:
    """Return ids of runs, each once; `-` is replaced by those on standard input: the first word of each line.

    A line may also be a run as JSON, as `swissbrain runs --json` prints it. Raises BadParameter.
    """
    found: dict[str, None] = {}
    for text in texts:
        found.update(dict.fromkeys(_read_ids() if text == STDIN else [text]))
    return list(found)


def _read_ids() -> Iterator[str]:
    number = 0
    while line := sys.stdin.readline(MAX_LINE_CHARS):
        number += 1
        if number > MAX_LINES or len(line) == MAX_LINE_CHARS:
            raise typer.BadParameter(f"standard input has more than {MAX_LINES:,} lines, or a line that is too long")
        if line.lstrip().startswith("{"):
            try:
                yield str(json.loads(line)["run_id"])
            except (ValueError, KeyError, RecursionError):
                raise typer.BadParameter(f"line {number} of standard input is not a run as JSON") from None
        elif words := line.split():
            yield words[0]


def warn_of_unreadable(run_id: str) -> None:
    """Report a run whose record cannot be read."""
    note(f"the record of run {run_id} cannot be read: it is damaged, or a newer release has written it")
