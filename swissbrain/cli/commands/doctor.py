"""Command `doctor`."""

import typer

from swissbrain.access import find_access
from swissbrain.cli.access import connect, profile
from swissbrain.cli.exit_codes import FAILED
from swissbrain.cli.terminal import note


def doctor() -> None:
    """Check the connection to the API, its release, the clocks, the token and the workers."""
    # Here, because it imports the HTTP library, and the list of all commands imports this module.
    from swissbrain.cli.checks import Checklist, check_api, check_workers

    checks = Checklist()
    access = find_access(profile.get())
    with connect(note, patience_s=0) as client:
        if check_api(checks, access, client):
            checks.check("workers", lambda: check_workers(client))
        else:
            checks.skip("workers", "the API cannot be used")
    if checks.failed:
        raise typer.Exit(FAILED)
