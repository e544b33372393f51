"""Arguments and options that several commands share."""

from typing import Annotated

import typer

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")]
RunIds = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids of the runs.")]
FailedWith = Annotated[str | None, typer.Option(help="All of your runs that failed with this code.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value per line.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log live until the run has ended.")]
