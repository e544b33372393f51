"""Command `swissbrain deploy`: brings workers and API to the release of this command, and proves that they work.

Every step may be repeated: a deployment that was killed half-way is finished by the next one.
"""

from contextlib import suppress
from importlib.metadata import version
from typing import Annotated

import typer

from infra.commands import deploying
from infra.commands.deploying import describe, one_line, own_access, verified
from infra.commands.preflight import check_cluster, check_installation_before, goes_down
from infra.commands.rollback import go_back
from infra.commands.running import say
from infra.commands.verify import variables_of
from infra.deploy.cluster import KubectlCluster
from infra.deploy.deployer import Deployer
from infra.deploy.description import Description
from infra.deploy.edge import EdgeDeployment
from infra.deploy.errors import DeployFailed
from infra.deploy.lock import NAME as LEASE
from infra.deploy.lock import held
from infra.deploy.record import Record
from infra.deploy.sources import Source, rendered
from infra.settings import Env
from swissbrain.access import Access
from swissbrain.cli.checks import CheckFailed, Checklist, release_of


def deploy(
    file: deploying.File = None,
    context: deploying.Context = None,
    overlay: deploying.Overlay = None,
    chart: deploying.Chart = None,
    values: deploying.Values = None,
    image: deploying.Image = None,
    stage: deploying.Stage = None,
    region: deploying.Region = None,
    param: deploying.Param = None,
    origin: deploying.Origin = None,
    timeout: deploying.Timeout = None,
    dry_run: deploying.DryRun = False,
    rollback_on_failure: Annotated[
        bool, typer.Option("--rollback-on-failure", help="Return to what ran before if this deployment fails.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Say what is deployed, and do nothing.")] = False,
) -> None:
    """Check, apply, wait, verify: bring workers and API of a cluster, and the edge, to this release."""
    description = describe(
        file,
        context=context,
        overlay=overlay,
        chart=chart,
        values=values,
        image=image,
        stage=stage,
        region=region,
        param=param,
    )
    with one_line():
        cluster = KubectlCluster(deploying.programs(dry_run=dry_run), description.context, description.namespace)
        if status:
            _show_status(cluster)
            return
        with rendered(description, cluster) as source:
            _Deployment(description, cluster, source, origin, timeout).run(rollback_on_failure=rollback_on_failure)


class _Deployment:
    """One deployment, from its preflight to its verification."""

    def __init__(
        self,
        description: Description,
        cluster: KubectlCluster,
        source: Source,
        origin: str | None,
        timeout_s: float | None,
    ) -> None:
        self._description = description
        self._cluster = cluster
        self._source = source
        self._origin = origin
        self._timeout_s = timeout_s
        self._release = version("swissbrain")
        self._access: Access | None = own_access()
        self._failed: list[str] = []

    def run(self, *, rollback_on_failure: bool) -> None:
        """Deploy. Raises DeployFailed, SettingsError."""
        self._preflight()
        with held(self._cluster) as lock:
            deployer = Deployer(
                self._description, self._cluster, lock, release=self._release, timeout_s=self._timeout_s
            )
            try:
                self._deploy(deployer)
            except DeployFailed as exc:
                if self._cluster.programs.dry_run:
                    raise
                with suppress(DeployFailed):
                    deployer.fail(str(exc))
                if not rollback_on_failure:
                    raise DeployFailed(f"{exc}; {self._advice(deployer)}") from None
                say(f"failed: {exc}")
                runs = self._go_back(deployer)
                raise DeployFailed(f"the deployment failed and was rolled back; {runs} runs") from None

    def _preflight(self) -> None:
        checks = Checklist()
        manifests = self._source.manifests
        described = self._description.edge
        edge = EdgeDeployment(self._cluster.programs, described) if described else None
        check_cluster(checks, self._cluster, manifests, edge)
        env = Env({}) if self._access is None else variables_of(self._access)
        if self._cluster.programs.dry_run:
            checks.skip("stores", "that would write a key and an object")
        else:
            check_installation_before(checks, self._access, env, self._release, self._origin)
        self._failed = checks.failed
        if checks.failed and not self._cluster.programs.dry_run:
            raise self._unfit()

    def _unfit(self) -> DeployFailed:
        return DeployFailed(f"nothing was changed; failed: {', '.join(self._failed)}")

    def _deploy(self, deployer: Deployer) -> None:
        snapshot = deployer.deploy(self._source, down=self._goes_down())
        if self._cluster.programs.dry_run:
            say(f"# verify: a run against the API, which must be release {self._release}")
            if self._failed:
                raise self._unfit()
            return
        verified(self._access, self._origin, self._release, scales_to_zero=self._source.manifests.scales_to_zero)
        deployer.succeed(snapshot)
        say(f"deployed: {snapshot}")

    def _goes_down(self) -> bool:
        """Return whether the release that runs is newer. Unknown: no."""
        try:
            return self._access is not None and goes_down(release_of(self._access), self._release)
        except CheckFailed:
            return False

    def _advice(self, deployer: Deployer) -> str:
        way_back = deployer.record.state.way_back()
        again = "mend it and repeat 'swissbrain deploy', which continues"
        return f"{again}, or 'swissbrain rollback' returns to {way_back}" if way_back else again

    def _go_back(self, deployer: Deployer) -> str:
        try:
            return go_back(deployer, self._access, self._origin)
        except DeployFailed as exc:
            raise DeployFailed(f"the deployment failed, and so did the way back: {exc}") from None


def _show_status(cluster: KubectlCluster) -> None:
    """Print the record, and what is left half-way. Raises DeployFailed."""
    state = Record(cluster).read()
    say(f"running  {state.running or 'no record'}")
    for name, image in sorted(state.running.images.items() if state.running else ()):
        say(f"         {name}: {image}")
    if state.running and state.running.edge:
        edge = state.running.edge
        say(f"         edge: {edge.stage} in {edge.region}, deployment {edge.timestamp}")
    say(f"before   {state.before or 'nothing that a rollback could return to'}")
    if attempt := state.attempt:
        reason = f": {attempt.reason}" if attempt.reason else ""
        say(f"last     {attempt.action} by {attempt.by} {attempt.at}, {attempt.phase}{reason}")
    if lease := cluster.find("lease", LEASE):
        say(f"now      {lease['spec'].get('holderIdentity')} deploys, or was killed")
