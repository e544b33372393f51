"""Command `swissbrain verify`: is this installation complete, and does it do what it should?

Uses the API like a user, and Redis and the object store like the API and the workers. The addresses and credentials are
those of the profile or the environment; parts without settings are not checked.
"""

import os
from typing import Annotated

import typer

from infra.commands.verify_run import check_run
from infra.commands.verify_stores import check_stores
from infra.settings import Env, SettingsError, is_origin
from swissbrain.access import Access, find_access
from swissbrain.cli.access import connect, profile
from swissbrain.cli.checks import Checklist, check_api, check_workers
from swissbrain.cli.exit_codes import FAILED, USAGE
from swissbrain.cli.terminal import note
from swissbrain.cli.times import seconds

TIMEOUT_S = 60.0


def _origin(text: str) -> str:
    """Return an origin as browsers send it. Raises BadParameter."""
    if text != "*" and not is_origin(text):
        raise typer.BadParameter(f"'{text}' is not an origin such as https://console.example.org")
    return text


def verify(
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=seconds, metavar="DURATION", help="For a worker, and then for the end of the run; 60s by default."
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            parser=_origin, metavar="ORIGIN", help="Its pages may use the bucket; else the first of EDGE_CORS_ORIGINS."
        ),
    ] = None,
) -> None:
    """Check every part of an installation with a real run, and clean up."""
    checks = Checklist()
    access = find_access(profile.get())
    try:
        check_installation(checks, access, origin, TIMEOUT_S if timeout is None else timeout)
    except SettingsError as exc:
        note(str(exc))
        raise typer.Exit(USAGE) from None
    if checks.failed:
        note(f"failed: {', '.join(checks.failed)}")
        raise typer.Exit(FAILED)


def check_installation(
    checks: Checklist,
    access: Access,
    origin: str | None,
    timeout_s: float,
    *,
    same_release: bool = True,
    scales_to_zero: bool = False,
) -> None:
    """Check the API, the stores and the workers of an installation, with a run. Raises SettingsError.

    `scales_to_zero`: an autoscaler starts the first worker when there is a run.
    """
    with connect(note, patience_s=5) as client:
        usable = check_api(checks, access, client, same_release=same_release)
        check_stores(checks, variables_of(access), origin)
        if not usable:
            checks.skip("run", "the API or the workers cannot be used")
            return
        if scales_to_zero:
            checks.skip("workers", "an autoscaler starts the first one for a run")
        elif not checks.check("workers", lambda: check_workers(client)):
            checks.skip("run", "the API or the workers cannot be used")
            return
        check_run(checks, client, timeout_s)


def variables_of(access: Access) -> Env:
    """Return the settings of API and workers: those of the profile, unless the environment has others."""
    return Env({**access.variables, **os.environ})
