"""The chart: what helm is called with, and what the real helm says of its releases.

helm writes its objects in a form that the API server of the tests does not read, so no upgrade is carried out here.
"""

import base64
import gzip
import json

import msgspec

from infra.deploy.deployer import Deployer
from infra.deploy.description import Description, read
from infra.deploy.manifests import API, WORKER
from infra.deploy.sources import BASE, Chart
from tests.docs.pages import ROOT
from tests.support.deploy_site import Site, image, needs_kubectl

pytestmark = needs_kubectl

CHART = ROOT / "k8s" / "helm" / "swissbrain"


def described() -> Description:
    images = {name: image(name, "2") for name in ("worker", "api")}
    values = [str(CHART / "values-kind.yaml")]
    return read(None, {"context": "test", "chart": str(CHART), "values": values, "images": images})


def add_release(site: Site, revision: int, status: str) -> None:
    """Store a release as helm does."""
    meta = {"name": "swissbrain", "version": "0.1.0"}
    release = {"name": "swissbrain", "namespace": "default", "version": revision, "chart": {"metadata": meta}}
    text = json.dumps({**release, "info": {"status": status}}).encode()
    data = base64.b64encode(base64.b64encode(gzip.compress(text))).decode()
    labels = {"owner": "helm", "name": "swissbrain", "status": status, "version": str(revision)}
    name = f"sh.helm.release.v1.swissbrain.v{revision}"
    made = {"metadata": {"name": name, "namespace": "default", "labels": labels}, "data": {"release": data}}
    site.server.call(lambda: site.server.store.create("secrets", {**made, "type": "helm.sh/release.v1"}))


def test_the_first_upgrade_keeps_the_present_image_of_what_comes_later(site: Site) -> None:
    site.install("1")
    chart = Chart(described(), site.cluster(dry_run=True))
    assert chart.manifests.images()["agent-worker"] == image("worker", "2")
    chart.apply(WORKER, last=False)
    chart.apply(API, last=True)
    first, second = site.commands()
    assert first.startswith("$ helm --kube-context=test --namespace=default upgrade --install swissbrain ")
    before, kept = first.split(f" --set-string=images.api={image('api', '1')}")
    assert before + kept == second


def test_a_rollback_returns_to_the_revision_that_was_verified(site: Site) -> None:
    target = msgspec.structs.replace(site.install("1"), helm_revision=2)
    site.install("2")
    deployer = Deployer(described(), site.cluster(dry_run=True), None, release="2.0.0", timeout_s=20)
    deployer.record.read()
    deployer.roll_back(target, down=True)
    command = "$ helm --kube-context=test --namespace=default rollback swissbrain 2 --timeout=5m"
    assert site.commands()[0] == command


def test_the_record_of_a_killed_helm_is_removed_and_deployed_ones_stay(site: Site) -> None:
    chart = Chart(described(), site.cluster())
    assert chart.revision() is None
    for revision, status in ((1, "superseded"), (2, "deployed"), (3, "pending-upgrade")):
        add_release(site, revision, status)
    assert chart.revision() == 2
    chart.apply(BASE, last=False)
    kept = [each["metadata"]["labels"]["status"] for each in site.server.objects("secrets", "default")]
    assert kept == ["superseded", "deployed"]
    site.commands()
    chart.apply(BASE, last=False)
    assert site.commands() == []
