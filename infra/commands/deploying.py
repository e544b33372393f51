"""Options and steps that `swissbrain deploy` and `swissbrain rollback` share."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.commands.running import say
from infra.commands.verify import check_installation
from infra.deploy.description import Description, read
from infra.deploy.errors import DeployFailed, InvalidDescription
from infra.deploy.programs import Programs
from infra.settings import SettingsError
from swissbrain.access import URL, Access, find_access
from swissbrain.cli.access import profile
from swissbrain.cli.checks import CheckFailed, Checklist, release_of
from swissbrain.cli.errors import CommandError
from swissbrain.cli.exit_codes import FAILED
from swissbrain.cli.terminal import note, plain
from swissbrain.cli.times import seconds
from swissbrain.errors import ClientError

FILE = Path("deploy.toml")
VERIFY_S = 300.0
"""Time for a worker to come: KEDA asks once a minute, and a node may have to be started."""
APPEAR_S = 60.0
"""Time in which the new release must answer once its pods are ready: load balancers and functions follow late."""

File = Annotated[
    Path | None,
    typer.Argument(help="Description of the deployment, TOML; deploy.toml if it is there.", show_default=False),
]
Context = Annotated[str | None, typer.Option(metavar="NAME", help="Context of kubectl.")]
Overlay = Annotated[str | None, typer.Option(metavar="FOLDER", help="Overlay for kustomize.")]
Chart = Annotated[str | None, typer.Option(metavar="FOLDER", help="Chart for helm, in place of an overlay.")]
Values = Annotated[list[str] | None, typer.Option(metavar="FILE", help="Values for the chart. Several are allowed.")]
Image = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=IMAGE@DIGEST", help="Image worker, api, tools or valkey. Several are allowed."),
]
Stage = Annotated[str | None, typer.Option(metavar="NAME", help="Stage of the edge on AWS Lambda.")]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="Region of the edge.")]
Param = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Parameter of serverless.yml. Several are allowed.")
]
Timeout = Annotated[
    float | None, typer.Option(parser=seconds, metavar="DURATION", help="For each rollout; 15m by default.")
]
Origin = Annotated[
    str | None,
    typer.Option(metavar="ORIGIN", help="Its pages may use the bucket; else the first of EDGE_CORS_ORIGINS."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the exact steps; change nothing.")]


def describe(file: Path | None, **options: Any) -> Description:
    """Return the description of a file and of options. Raises CommandError."""
    if file is None and FILE.is_file():
        file = FILE
    edge = {name: options.pop(name) for name in ("stage", "region") if options.get(name)}
    if params := options.pop("param", None):
        edge["params"] = _pairs("--param", params)
    if images := options.pop("image", None):
        options["images"] = _pairs("--image", images)
    given = {name: value for name, value in options.items() if value} | ({"edge": edge} if edge else {})
    if file is None and not given:
        raise CommandError(f"there is no {FILE}; name a file, or give --context and --overlay (docs/deploy.md)")
    try:
        return read(file, given)
    except InvalidDescription as exc:
        raise CommandError(str(exc)) from None


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name or not value:
            raise CommandError(f"{option} needs NAME=VALUE, not '{each}'")
        found[name] = value
    return found


def programs(*, dry_run: bool) -> Programs:
    """Return the programs, which are shown on standard output."""
    return Programs(lambda line: say(plain(line)), dry_run=dry_run)


def own_access() -> Access | None:
    """Return the access to the API that is deployed; None without one. The dev stack is not what is deployed."""
    try:
        access = find_access(profile.get())
    except ClientError:
        if profile.get() is not None or os.environ.get(URL):
            raise  # given, and wrong
        return None
    return None if access.is_dev_stack and profile.get() is None else access


@contextmanager
def one_line() -> Iterator[None]:
    """Turn errors into one line: exit code 2 for settings, 1 for a deployment that failed. SIGTERM ends like Ctrl-C."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except SettingsError as exc:
        raise CommandError(str(exc)) from None
    except DeployFailed as exc:
        note(str(exc))
        raise typer.Exit(FAILED) from None
    finally:
        signal.signal(signal.SIGTERM, former)


def verified(access: Access | None, origin: str | None, release: str | None, *, scales_to_zero: bool) -> None:
    """Check the installation with a run. `release`: the API must be of this one. Raises DeployFailed, SettingsError."""
    if access is None:
        raise DeployFailed(
            "applied, but not verified: set SWISSBRAIN_API_URL and SWISSBRAIN_TOKEN, or give --profile, and repeat"
        )
    if release is not None:
        _wait_for_release(access, release)
    checks = Checklist()
    check_installation(
        checks, access, origin, VERIFY_S, same_release=release is not None, scales_to_zero=scales_to_zero
    )
    if checks.failed:
        raise DeployFailed(f"the new state is not right: {', '.join(checks.failed)}")


def _wait_for_release(access: Access, release: str) -> None:
    """Return when the API answers with a release, or after a while: then the checks say what is wrong."""
    deadline_s = time.monotonic() + APPEAR_S
    while time.monotonic() < deadline_s:
        try:
            if release_of(access) == release:
                return
        except CheckFailed:
            pass
        time.sleep(1)
