"""The command `swissbrain`.

Exit codes: 0 done, or the run succeeded; 1 the run failed; 2 bad input, a refusal, or an API out of reach, with one
line on stderr; 3 the run was cancelled; 130 interrupted.
"""

import signal
import sys
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from swissbrain import dev as local
from swissbrain import tables
from swissbrain.access import AccessError, connect
from swissbrain.bulk import each_run, named_runs
from swissbrain.errors import ClientError
from swissbrain.output import USAGE, follow_run, note, print_json, show_log
from swissbrain.plan_file import PlanError, read_plan
from swissbrain.terminal import console, plain
from swissbrain.times import moment_ms

INTERRUPTED = 128 + signal.SIGINT

app = typer.Typer(
    help="Run AI agents, watch them, and keep what they make.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
RunIds = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="The runs' ids.")]
FailedWith = Annotated[str | None, typer.Option(help="All of your runs that failed with this code.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, one value a line.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log live until the run has ended.")]


@app.callback(invoke_without_command=True)
def main_options(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Run AI agents, watch them, and keep what they make."""
    if show_version:
        typer.echo(f"swissbrain {version('swissbrain')}")
        raise typer.Exit
    del context


app.command("dev")(local.dev)
app.command("demo")(local.demo)


@app.command()
def run(
    prompt: Annotated[str | None, typer.Argument(help="What the agent shall do.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A JSON file with the steps to execute.")] = None,
    follow: Follow = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Queue it at once.")] = True,
    priority: Annotated[int | None, typer.Option(help="0 (last) to 8 (first).")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="1 to 20.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="Seconds before it is stopped.")] = None,
    delay_s: Annotated[float | None, typer.Option("--delay", help="Begin so many seconds later.")] = None,
    start_at_ms: Annotated[
        int | None,
        typer.Option("--start-at", parser=moment_ms, metavar="TIME", help="Begin then, such as 2026-11-30T02:00."),
    ] = None,
    queue_ttl_s: Annotated[
        float | None, typer.Option("--queue-ttl", help="Fail if nobody has begun it after so many seconds.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given several times.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same again finds the same run.")] = None,
    as_json: Json = False,
) -> None:
    """Create a run and queue it. Prints its id."""
    if delay_s is not None and start_at_ms is not None:
        raise typer.BadParameter("give --delay or --start-at, not both")
    steps = None if plan is None else read_plan(plan)
    with connect(note) as client:
        made = client.create_run(
            prompt=prompt,
            plan=steps,
            start=start,
            priority=priority,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            metadata=_pairs(metadata or []) or None,
            delay_s=delay_s,
            start_at_ms=start_at_ms,
            queue_ttl_s=queue_ttl_s,
            idempotency_key=key,
        )
        if not follow:
            print_json(made) if as_json else typer.echo(plain(made.run_id))
            return
        note(f"run {made.run_id}")
        follow_run(client, made.run_id, 0, as_json=as_json)


@app.command()
def logs(
    run_id: RunId,
    follow: Follow = False,
    after: Annotated[int, typer.Option(help="Begin after the event with this sequence number.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Show a run's log; with -f live, until it has ended."""
    with connect(note) as client:
        if follow:
            follow_run(client, run_id, after, as_json=as_json)
        else:
            show_log(client.logged(run_id, after=after), as_json=as_json)


@app.command()
def runs(
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    error: Annotated[str | None, typer.Option(help="Only runs that failed with this code.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List your runs, newest first."""
    with connect(note) as client:
        found = [item for item, _ in zip(client.runs(status=status, error=error), range(limit), strict=False)]
    if as_json:
        print_json(*found)
    else:
        console().print(tables.runs_table(found))


@app.command()
def show(
    run_id: RunId,
    attempts: Annotated[bool, typer.Option("--attempts", help="Show who worked on it instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show a run."""
    with connect(note) as client:
        if attempts:
            tried = client.attempts(run_id)
            print_json(*tried) if as_json else console().print(tables.attempts_table(tried))
        else:
            found = client.get_run(run_id)
            print_json(found) if as_json else console().print(tables.run_table(found))


@app.command()
def files(
    run_id: RunId,
    path: Annotated[str | None, typer.Argument(help="Print this file instead of the list.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the file there.")] = None,
    as_json: Json = False,
) -> None:
    """List a run's files, or fetch one of them."""
    with connect(note) as client:
        if path is None:
            if output is not None:
                raise typer.BadParameter("--output needs the PATH of a file")
            found = client.files(run_id)
            print_json(*found) if as_json else console().print(tables.files_table(found))
        elif output is None:
            client.download(run_id, path, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            client.save(run_id, path, output)


@app.command()
def start(run_id: RunId, as_json: Json = False) -> None:
    """Queue a run that was created without being started."""
    with connect(note) as client:
        state = client.start(run_id)
    print_json(state) if as_json else typer.echo(plain(state.status))


@app.command()
def cancel(run_id: RunId, as_json: Json = False) -> None:
    """Cancel a run."""
    with connect(note) as client:
        state = client.cancel(run_id)
    pending = state.cancel_requested and state.status == "running"
    print_json(state) if as_json else typer.echo("cancel requested" if pending else plain(state.status))


@app.command()
def retry(
    run_ids: RunIds = None,
    error: FailedWith = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Queue failed or cancelled runs again; completed steps are not repeated."""
    if follow and len(run_ids or ()) != 1:
        raise typer.BadParameter("--follow needs one run")
    with connect(note) as client:
        wanted = named_runs(client, run_ids, error)
        after = client.get_run(wanted[0]).last_seq if follow else 0

        def queue_again(run_id: str) -> None:
            state = client.retry(run_id)
            if as_json:
                print_json(state)
            elif not follow:
                typer.echo(plain(f"{run_id} {state.status}"))

        each_run(wanted, queue_again)
        if follow:
            follow_run(client, wanted[0], after, as_json=as_json)


@app.command()
def fork(
    run_id: RunId,
    from_step: Annotated[int, typer.Option(help="The first step to execute anew, counted from 1.", min=1)],
    plan: Annotated[Path | None, typer.Option(help="A JSON file with other steps from there on.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the agent shall do instead.")] = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Create a run that begins with the steps before one of RUN's, with their results and files."""
    steps = None if plan is None else read_plan(plan)
    with connect(note) as client:
        made = client.fork(run_id, from_step - 1, plan=steps, prompt=prompt)
        if not follow:
            print_json(made) if as_json else typer.echo(plain(made.run_id))
            return
        note(f"run {made.run_id}")
        follow_run(client, made.run_id, 0, as_json=as_json)


@app.command()
def delete(run_ids: RunIds = None, error: FailedWith = None) -> None:
    """Delete runs that have ended or were never started, with their logs and their files."""
    with connect(note) as client:

        def remove(run_id: str) -> None:
            client.delete(run_id)
            typer.echo(plain(f"{run_id} deleted"))

        each_run(named_runs(client, run_ids, error), remove)


@app.command()
def queue(as_json: Json = False) -> None:
    """Show how many runs stand where, of all users."""
    with connect(note) as client:
        depths = client.queue()
    print_json(depths) if as_json else console().print(tables.queue_table(depths))


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"'{text}' is not KEY=VALUE", param_hint="--metadata")
    return pairs


def main() -> None:
    """Run the command and exit. What goes wrong is one line on stderr."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
    except TyperException as exc:
        if message := exc.format_message():
            note(message)
        code = USAGE
    except (ClientError, PlanError, AccessError) as exc:
        note(str(exc))
        code = USAGE
    except OSError as exc:
        note(f"{exc.filename or 'cannot go on'}: {exc.strerror}")
        code = USAGE
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
