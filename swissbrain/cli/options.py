"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from swissbrain.cli.completion import run_ids, statuses
from swissbrain.cli.times import seconds, time_ms

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.", autocompletion=run_ids)]
RunIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Ids of runs; - reads them from standard input.", autocompletion=run_ids),
]
StatusFilter = Annotated[
    str | None, typer.Option(help="Only runs with this status, or several: failed,cancelled.", autocompletion=statuses)
]
FailedWith = Annotated[str | None, typer.Option(help="Only runs that failed with this code.")]
CreatedAfter = Annotated[
    int | None, typer.Option(parser=time_ms, metavar="TIME", help="Only runs created since: 2026-11-30, or 2h (ago).")
]
CreatedBefore = Annotated[
    int | None, typer.Option(parser=time_ms, metavar="TIME", help="Only runs created before: 2026-11-30, or 30d (ago).")
]
Metadata = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only runs with this metadata. Several must all be equal.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the ids of the runs and change nothing.")]
Network = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Host that the programs may reach, such as pypi.org:443 or *.example.org:443. Several are allowed.",
    ),
]
InputFiles = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH[=NAME]", help="File or folder that the run begins with. Several are allowed."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value per line. Steps count from 0 there.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log live until the run has ended.")]
NoInput = Annotated[
    bool, typer.Option("--no-input", help="With --follow: do not ask for answers; name the commands that give them.")
]
WebhookUrl = Annotated[
    str | None,
    typer.Option("--webhook", metavar="URL", help="URL that is called when the run ends, or waits for a person."),
]
WebhookEvents = Annotated[
    list[str] | None,
    typer.Option(
        "--webhook-event", metavar="EVENT", help="finished, failed, waiting or limit; may be given several times."
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option("--timeout", parser=seconds, metavar="DURATION", help="Time until the run is stopped, such as 5m."),
]
PlanFile = Annotated[
    Path | None,
    typer.Option("--plan", metavar="FILE", help="JSON or YAML file with the steps to execute; - is standard input."),
]
ShellSteps = Annotated[
    list[str] | None, typer.Option(metavar="COMMAND", help="A step that runs a command line. Several are allowed.")
]
CodeSteps = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="A step that runs a program: .py, .js, .mjs, .cjs or .sh. Several are allowed."),
]
