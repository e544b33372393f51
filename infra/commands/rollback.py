"""Command `swissbrain rollback`: returns workers, API and edge to what ran before the last deployment."""

from contextlib import suppress
from importlib.metadata import version

from infra.commands import deploying
from infra.commands.deploying import describe, one_line, own_access, verified
from infra.commands.preflight import goes_down, numbers
from infra.commands.running import say
from infra.deploy.cluster import KubectlCluster
from infra.deploy.deployer import Deployer
from infra.deploy.errors import DeployFailed
from infra.deploy.lock import held
from swissbrain.access import Access


def rollback(
    file: deploying.File = None,
    context: deploying.Context = None,
    overlay: deploying.Overlay = None,
    chart: deploying.Chart = None,
    values: deploying.Values = None,
    stage: deploying.Stage = None,
    region: deploying.Region = None,
    param: deploying.Param = None,
    origin: deploying.Origin = None,
    timeout: deploying.Timeout = None,
    dry_run: deploying.DryRun = False,
) -> None:
    """Return to what ran before the last deployment, and verify it; a second call changes nothing more."""
    description = describe(
        file, context=context, overlay=overlay, chart=chart, values=values, stage=stage, region=region, param=param
    )
    with one_line():
        cluster = KubectlCluster(deploying.programs(dry_run=dry_run), description.context, description.namespace)
        with held(cluster) as lock:
            deployer = Deployer(description, cluster, lock, release=version("swissbrain"), timeout_s=timeout)
            runs = go_back(deployer, own_access(), origin)
        say(f"# {runs} would run" if dry_run else f"{runs} runs")


def go_back(deployer: Deployer, access: Access | None, origin: str | None) -> str:
    """Return to what ran before and verify it; return a text that says what that is. Raises DeployFailed."""
    target = deployer.way_back()
    running = deployer.record.state.running
    # Usually to an older release, so also where it is not known.
    down = numbers(target.release) is None or running is None or not goes_down(target.release, running.release)
    try:
        deployer.roll_back(target, down=down)
        if not deployer.is_dry:
            verified(access, origin, None, scales_to_zero=True)
            deployer.end_rollback(target)
    except DeployFailed as exc:
        with suppress(DeployFailed):
            deployer.fail(str(exc))
        raise DeployFailed(f"{exc}; repeat 'swissbrain rollback', which continues to {target}") from None
    return str(target)
