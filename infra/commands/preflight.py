"""Checks before a deployment: everything it needs is checked, and all failures are reported together."""

import re
from collections.abc import Callable

from infra.commands.verify_stores import check_stores
from infra.deploy.cluster import KubectlCluster
from infra.deploy.edge import EdgeDeployment
from infra.deploy.errors import DeployFailed
from infra.deploy.manifests import Manifests
from infra.settings import Env
from swissbrain.access import Access
from swissbrain.cli.checks import CheckFailed, Checklist, check_clock, release_of

OLDEST_KUBERNETES = (1, 34)
MAX_SHOWN = 5
_NUMBERS = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


def check_cluster(
    checks: Checklist, cluster: KubectlCluster, manifests: Manifests, edge: EdgeDeployment | None
) -> None:
    """Check the description, the cluster and the programs of this machine. Changes nothing."""
    checks.check("manifests", lambda: _manifests(manifests, cluster.namespace))
    if checks.check("cluster", lambda: _said(lambda: _cluster(cluster))):
        checks.check("rights", lambda: _said(lambda: _rights(cluster, manifests)))
        if checks.check("namespaces", lambda: _said(lambda: _namespaces(cluster, manifests))):
            checks.check("secrets", lambda: _said(lambda: _secrets(cluster, manifests)))
        else:
            checks.skip("secrets", "a namespace is missing")
    else:
        checks.skip("rights", "the cluster cannot be used")
    if edge is not None:
        checks.check("edge", lambda: _said(lambda: _edge(edge)))


def check_installation_before(
    checks: Checklist, access: Access | None, env: Env, release: str, origin: str | None
) -> None:
    """Check what runs: the release of the API, clocks, Redis through both clients, the bucket. Raises SettingsError."""
    if access is None:
        checks.skip("release", "SWISSBRAIN_API_URL and SWISSBRAIN_TOKEN are not set, nor --profile")
    else:
        found: list[str] = []
        try:
            found.append(release_of(access))
        except CheckFailed as exc:
            # This deployment may be the first one, or the cure.
            checks.skip("release", f"{exc}; does this deployment begin or repair it?")
        if found:
            checks.check("release", lambda: _releases(found[0], release))
            checks.check("clock", lambda: check_clock(access))
    check_stores(checks, env, origin)


def numbers(release: str) -> tuple[int, ...] | None:
    """Return the numbers of a release, which can be compared; None if it has none."""
    found = _NUMBERS.match(release)
    return tuple(int(number or 0) for number in found.groups()) if found else None


def goes_down(former: str, release: str) -> bool:
    """Return whether a release is older than a former one."""
    before, after = numbers(former), numbers(release)
    return before is not None and after is not None and after < before


def _said(work: Callable[[], str]) -> str:
    """Return what a check has found. Raises CheckFailed for what a program says."""
    try:
        return work()
    except DeployFailed as exc:
        raise CheckFailed(str(exc)) from None


def _manifests(manifests: Manifests, namespace: str) -> str:
    if problems := manifests.problems(namespace):
        raise CheckFailed(_few(problems, "; "))
    return f"{len(manifests.objects)} objects, {len(set(manifests.images().values()))} images by their digests"


def _cluster(cluster: KubectlCluster) -> str:
    version = cluster.version()
    found = numbers(version)
    if found is None:
        raise CheckFailed(f"the API server of the context '{cluster.context}' does not say its version")
    if found[:2] < OLDEST_KUBERNETES:
        raise CheckFailed(
            f"Kubernetes {version} is older than {'.'.join(map(str, OLDEST_KUBERNETES))}; upgrade it first"
        )
    return f"{version}, context '{cluster.context}'"


def _rights(cluster: KubectlCluster, manifests: Manifests) -> str:
    wanted = manifests.rights(cluster.namespace)
    missing = [
        f"{verb} {resource}{'.' + group if group else ''}{' in ' + namespace if namespace else ''}"
        for verb, group, resource, namespace in cluster.missing_rights(wanted)
    ]
    if missing:
        raise CheckFailed(f"the user of the context may not {_few(missing, ', ')}; use an administrator's context")
    return f"all {len(wanted)}"


def _namespaces(cluster: KubectlCluster, manifests: Manifests) -> str:
    wanted = manifests.namespaces()
    present = cluster.names("namespaces")
    if missing := [name for name in wanted if name not in present]:
        raise CheckFailed(f"{', '.join(missing)} is missing; run 'kubectl apply -f k8s/base/namespaces.yaml'")
    return ", ".join(wanted)


def _secrets(cluster: KubectlCluster, manifests: Manifests) -> str:
    wanted, present = manifests.secret_keys(), cluster.secret_keys()
    problems = []
    for name, keys in sorted(wanted.items()):
        if name not in present:
            problems.append(f"{name} is missing")
            continue
        states = {key: present[name].get(key, "missing") for key in sorted(keys)}
        # Optional ones too: a program would take the text for a key.
        states |= {key: state for key, state in sorted(present[name].items()) if state == "placeholder"}
        problems += [f"{name} has {_STATES[state].format(key)}" for key, state in states.items() if state != "set"]
    if problems:
        raise CheckFailed(f"{_few(problems, '; ')}; see k8s/examples/secrets.yaml")
    return f"{len(wanted)} with {sum(map(len, wanted.values()))} keys; their values were not read"


_STATES = {"missing": "no {}", "empty": "an empty {}", "placeholder": "CHANGE-ME as {}"}


def _edge(edge: EdgeDeployment) -> str:
    if missing := edge.missing():
        raise CheckFailed(missing)
    timestamps = edge.timestamps()
    return f"package {edge.package()[:12]}; {len(timestamps)} earlier deployments are kept"


def _releases(running: str, release: str) -> str:
    if numbers(running) is None:
        raise CheckFailed(f"the API runs '{running}', which is no number of a release")
    if goes_down(running, release):
        return f"{running} runs, {release} is older: the API comes first, and runs that {running} has begun may wait"
    return f"{running} runs, {release} is deployed: workers come first"


def _few(lines: list[str], separator: str) -> str:
    more = f"{separator}and {len(lines) - MAX_SHOWN} more" if len(lines) > MAX_SHOWN else ""
    return separator.join(lines[:MAX_SHOWN]) + more
