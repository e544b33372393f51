"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from swissbrain.cli.completion import run_ids, statuses
from swissbrain.cli.times import seconds

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.", autocompletion=run_ids)]
RunIds = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids of the runs.", autocompletion=run_ids)
]
FailedWith = Annotated[str | None, typer.Option(help="All of your runs that failed with this code.")]
StatusFilter = Annotated[
    str | None,
    typer.Option(help="Only runs with this status, or one of several: failed,cancelled.", autocompletion=statuses),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value per line. Steps count from 0 there.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log live until the run has ended.")]
TimeLimit = Annotated[
    float | None,
    typer.Option("--timeout", parser=seconds, metavar="DURATION", help="Time until the run is stopped, such as 5m."),
]
