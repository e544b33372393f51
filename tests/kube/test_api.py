"""Answers of the test API server: errors, lists, watches, and what goes wrong with them."""

import json
from typing import Any

import pytest
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.kube.conftest import NAMESPACE, Cluster
from tests.support.kube import Cut, Deny, Fail
from tests.support.kube.access import Rule
from tests.support.waiting import wait_until


def refused(error: ApiException) -> tuple[int, str]:
    """Return code and reason of an error's body."""
    status = json.loads(error.body or "")
    assert (status["kind"], status["status"]) == ("Status", "Failure")
    return status["code"], status["reason"]


def test_a_second_job_of_the_same_name_is_refused(cluster: Cluster) -> None:
    first = cluster.create()
    with pytest.raises(ApiException) as error:
        cluster.create()
    assert refused(error.value) == (409, "AlreadyExists")
    assert cluster.jobs.read_namespaced_job(cluster.name, NAMESPACE).metadata.uid == first.metadata.uid


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"template": {"spec": {"restartPolicy": "Never", "containers": []}}}, 422),
        ({"pod": {"restartPolicy": "Always"}}, 422),
        ({"activeDeadlineSeconds": -1}, 422),
        ({"backoffLimit": "none"}, 400),
    ],
)
def test_bad_jobs_are_refused(cluster: Cluster, change: dict[str, Any], code: int) -> None:
    body = json.dumps(cluster.manifest(**change)).encode()
    url = f"{cluster.server.url}/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    assert urllib3.request("POST", url, body=body).status == code
    with pytest.raises(ApiException) as error:
        cluster.jobs.read_namespaced_job(cluster.name, NAMESPACE)
    assert refused(error.value) == (404, "NotFound")


def test_users_may_do_what_their_rules_allow(cluster: Cluster) -> None:
    access = cluster.server.access
    access.add("secret", "system:serviceaccount:agents:agent-worker", Rule(["create"], ["jobs"], NAMESPACE))
    with pytest.raises(ApiException) as error:
        cluster.create()
    assert refused(error.value) == (401, "Unauthorized")
    configuration = client.Configuration(host=cluster.server.url)
    configuration.api_key = {"authorization": "Bearer secret"}
    with client.ApiClient(configuration) as api:
        batch: Any = client.BatchV1Api(api)
        batch.create_namespaced_job(NAMESPACE, client.V1Job.from_dict(cluster.manifest()))
        with pytest.raises(ApiException) as error:
            client.CoreV1Api(api).list_namespaced_pod(NAMESPACE)
        assert refused(error.value) == (403, "Forbidden")
        attributes = client.V1ResourceAttributes(verb="create", resource="jobs", namespace="default")
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        authorization: Any = client.AuthorizationV1Api(api)
        assert authorization.create_self_subject_access_review(review).status.allowed is False
    access.users.clear()


def test_faults_of_requests_are_injected_and_counted(cluster: Cluster) -> None:
    faults = cluster.server.faults
    faults.add(Fail(429, retry_after_s=7), "create", resource="jobs", times=1)
    with pytest.raises(ApiException) as error:
        cluster.create()
    assert (error.value.status, (error.value.headers or {}).get("Retry-After")) == (429, "7")
    faults.heal()
    faults.add(Fail(500), "create", times=1)
    with pytest.raises(ApiException) as error:
        cluster.create()
    assert refused(error.value) == (500, "InternalError")
    faults.heal()
    faults.add(Deny(message="the image is not pinned"), "create", times=1)
    with pytest.raises(ApiException) as error:
        cluster.create()
    assert refused(error.value) == (422, "Invalid")
    assert "the image is not pinned" in str(error.value.body)


def test_an_answer_may_be_lost_after_the_job_was_created(cluster: Cluster) -> None:
    cluster.server.faults.add(Cut("after"), "create", resource="jobs", times=1)
    with pytest.raises(urllib3.exceptions.HTTPError):
        cluster.create()
    assert cluster.jobs.read_namespaced_job(cluster.name, NAMESPACE).metadata.name == cluster.name


def test_a_server_that_is_down_answers_nothing(cluster: Cluster) -> None:
    cluster.server.faults.down = True
    with pytest.raises(urllib3.exceptions.HTTPError):
        cluster.create()
    cluster.server.faults.down = False
    cluster.create()


def test_lists_have_pages_until_their_version_is_forgotten(cluster: Cluster) -> None:
    for number in range(3):
        note = client.V1ObjectMeta(name=f"{cluster.name}-{number}", labels={"test": cluster.name})
        lease = client.V1Lease(metadata=note)
        cluster.leases.create_namespaced_lease(NAMESPACE, lease)
    leases = cluster.leases
    first = leases.list_namespaced_lease(NAMESPACE, label_selector=cluster.label, limit=2)
    leases.delete_namespaced_lease(f"{cluster.name}-2", NAMESPACE)
    again = {"label_selector": cluster.label, "limit": 2, "_continue": first.metadata._continue}
    rest = leases.list_namespaced_lease(NAMESPACE, **again)
    assert [lease.metadata.name[-1] for lease in [*first.items, *rest.items]] == ["0", "1", "2"]
    assert rest.metadata._continue is None
    cluster.server.compact()
    with pytest.raises(ApiException) as error:
        leases.list_namespaced_lease(NAMESPACE, **again)
    assert refused(error.value) == (410, "Expired")
    newer = str(int(rest.metadata.resource_version) + 1000)
    with pytest.raises(ApiException) as error:
        leases.list_namespaced_lease(NAMESPACE, resource_version=newer)
    assert refused(error.value) == (504, "Timeout")


def test_reads_that_accept_any_version_may_be_stale(cluster: Cluster) -> None:
    cluster.server.faults.stale_s = 3600
    made = cluster.create()
    query = {"label_selector": cluster.label}
    assert not cluster.jobs.list_namespaced_job(NAMESPACE, resource_version="0", **query).items
    version = made.metadata.resource_version
    assert cluster.jobs.list_namespaced_job(NAMESPACE, resource_version=version, **query).items
    assert cluster.jobs.list_namespaced_job(NAMESPACE, **query).items


def test_a_patch_of_an_old_version_is_refused(cluster: Cluster) -> None:
    made = cluster.create("sleep 60")
    old = {"metadata": {"labels": {"owner": "a"}, "resourceVersion": made.metadata.resource_version}}
    cluster.jobs.patch_namespaced_job(cluster.name, NAMESPACE, {"metadata": {"annotations": {"note": "x"}}})
    with pytest.raises(ApiException) as error:
        cluster.jobs.patch_namespaced_job(cluster.name, NAMESPACE, old)
    assert refused(error.value) == (409, "Conflict")
    found = cluster.jobs.read_namespaced_job(cluster.name, NAMESPACE).metadata
    assert (found.labels.get("owner"), found.annotations) == (None, {"note": "x"})


def test_a_watch_sees_changes_bookmarks_and_its_timeout(cluster: Cluster) -> None:
    cluster.server.watches.bookmark_s = 0.2
    version = cluster.core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    cluster.create()
    seen = list(
        cluster.watch(
            cluster.core.list_namespaced_pod,
            label_selector=cluster.label,
            resource_version=version,
            timeout_seconds=1,
            allow_watch_bookmarks=True,
        )
    )
    kinds = [event["type"] for event in seen]
    assert kinds[0] == "ADDED"
    assert {"MODIFIED", "BOOKMARK"} <= {*kinds}
    assert kinds[-1] == "BOOKMARK"
    phases = [event["object"].status.phase for event in seen if event["type"] != "BOOKMARK"]
    assert (phases[0], phases[-1]) == ("Pending", "Succeeded")


def test_an_object_that_stops_matching_is_deleted_for_a_watch(cluster: Cluster) -> None:
    made = cluster.create("sleep 60")
    events = cluster.watch(cluster.jobs.list_namespaced_job, label_selector=cluster.label, timeout_seconds=30)
    assert next(events)["type"] == "ADDED"
    cluster.jobs.patch_namespaced_job(cluster.name, NAMESPACE, {"metadata": {"labels": {"test": None}}})
    last = next(event for event in events if event["type"] == "DELETED")
    assert last["object"].metadata.uid == made.metadata.uid
    cluster.jobs.patch_namespaced_job(cluster.name, NAMESPACE, {"metadata": {"labels": {"test": cluster.name}}})
    assert next(events)["type"] == "ADDED"
    events.close()


def test_a_watch_from_a_forgotten_version_gets_410(cluster: Cluster) -> None:
    old = cluster.create().metadata.resource_version
    cluster.server.compact()
    for cluster.server.faults.gone_as_status in (False, True):
        with pytest.raises(ApiException) as error:
            list(cluster.watch(cluster.jobs.list_namespaced_job, resource_version=str(int(old) - 1), timeout_seconds=5))
        assert error.value.status == 410


def test_watches_are_cut(cluster: Cluster) -> None:
    events = cluster.watch(cluster.jobs.list_namespaced_job, timeout_seconds=60)
    cluster.create()
    assert next(events)["type"] == "ADDED"
    wait_until(lambda: cluster.server.watches.open, "the watch is open")
    cluster.server.cut_watches()
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(events)
