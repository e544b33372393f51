"""Jobs and pods of the test cluster: their ends, their deletion, and the failures of a real one."""

import socket
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.kube.conftest import NAMESPACE, Cluster
from tests.support.kube import PodFault
from tests.support.waiting import wait_until

WAITS = "trap 'echo ending; exit 5' TERM; echo up; while :; do sleep 0.05; done"


def test_the_status_of_a_job_comes_after_that_of_its_container(cluster: Cluster) -> None:
    cluster.server.delays.job_status_s = 0.5
    cluster.create("echo out; exit 0")
    assert (cluster.ended().exit_code, cluster.ended().reason) == (0, "Completed")
    assert cluster.jobs.read_namespaced_job(cluster.name, NAMESPACE).status.conditions is None
    cluster.server.delays.job_status_s = 0.05
    assert cluster.condition("Complete").reason == "CompletionsReached"
    assert cluster.log() == b"out\n"


def test_a_failed_program_fails_its_job(cluster: Cluster) -> None:
    cluster.create("printf 'a\\377b'; exit 3")
    assert (cluster.ended().exit_code, cluster.ended().reason) == (3, "Error")
    assert cluster.condition("Failed").reason == "BackoffLimitExceeded"
    assert cluster.log() == b"a\xffb"
    with pytest.raises(UnicodeDecodeError):
        cluster.core.read_namespaced_pod_log(cluster.pods()[0].metadata.name, NAMESPACE)


def test_only_the_end_of_a_rotated_log_is_there(cluster: Cluster) -> None:
    cluster.server.faults.log_bytes = 1000
    cluster.create("head -c 3006 /dev/zero")
    cluster.ended()
    assert cluster.log() == bytes(6)


def test_the_default_deletion_leaves_the_pod_running(cluster: Cluster) -> None:
    cluster.create(WAITS)
    pod = cluster.pod("Running")
    cluster.jobs.delete_namespaced_job(cluster.name, NAMESPACE)
    wait_until(lambda: not cluster.pods()[0].metadata.finalizers, "the Job controller has left the pod")
    left = cluster.pod("Running")
    assert (left.metadata.uid, left.metadata.owner_references) == (pod.metadata.uid, None)


def test_a_deletion_in_the_background_ends_the_program_with_a_grace_period(cluster: Cluster) -> None:
    cluster.create(WAITS)
    cluster.pod("Running")
    wait_until(lambda: cluster.log() == b"up\n", "the program runs")
    container = cluster.server.running(cluster.name).container
    cluster.jobs.delete_namespaced_job(cluster.name, NAMESPACE, propagation_policy="Background")
    wait_until(lambda: not cluster.pods(), "the pod is gone")
    assert container
    assert (container.log.read_bytes(), container.exit_code) == (b"up\nending\n", 5)


def test_a_program_that_ignores_the_signal_is_killed_after_the_grace_period(cluster: Cluster) -> None:
    cluster.create("trap '' TERM; echo up; while :; do sleep 0.05; done", pod={"terminationGracePeriodSeconds": 600})
    cluster.pod("Running")
    wait_until(lambda: cluster.log() == b"up\n", "the program runs")
    container = cluster.server.running(cluster.name).container
    cluster.core.delete_namespaced_pod(cluster.pods()[0].metadata.name, NAMESPACE)
    assert container
    assert cluster.pods()[0].metadata.deletion_timestamp
    assert container.exit_code is None
    cluster.server.advance(601)
    wait_until(lambda: not cluster.pods(), "the pod is gone")
    assert container.exit_code == 137


def test_the_deadline_of_a_pod_keeps_its_log(cluster: Cluster) -> None:
    cluster.create(WAITS, pod={"activeDeadlineSeconds": 1000})
    cluster.pod("Running")
    wait_until(lambda: cluster.log() == b"up\n", "the program runs")
    cluster.server.advance(1001)
    assert cluster.pod("Failed").status.reason == "DeadlineExceeded"
    assert cluster.ended().exit_code == 5
    assert cluster.log() == b"up\nending\n"


def test_the_deadline_of_a_job_deletes_the_pod(cluster: Cluster) -> None:
    cluster.create(WAITS, activeDeadlineSeconds=1000)
    cluster.pod("Running")
    cluster.server.advance(1001)
    assert cluster.condition("Failed").reason == "DeadlineExceeded"
    assert not cluster.pods()


def test_a_finished_job_is_deleted_after_its_ttl(cluster: Cluster) -> None:
    cluster.create(ttlSecondsAfterFinished=900)
    cluster.condition("Complete")
    cluster.server.advance(899)
    assert cluster.pods()
    cluster.server.advance(2)
    wait_until(lambda: not cluster.pods(), "the pod is gone")


def test_pod_security_lets_a_job_wait_with_an_event(cluster: Cluster) -> None:
    body = cluster.manifest(pod={"securityContext": {}})
    tried = cluster.jobs.create_namespaced_job_with_http_info(NAMESPACE, client.V1Job.from_dict(body), dry_run="All")
    assert "would violate PodSecurity" in tried[2]["Warning"]
    cluster.create(pod={"securityContext": {}})
    wait_until(cluster.events, "there is an event")
    assert (cluster.events()[0].reason, cluster.events()[0].type) == ("FailedCreate", "Warning")
    assert "violates PodSecurity" in cluster.events()[0].message
    assert not cluster.pods()
    assert cluster.jobs.read_namespaced_job(cluster.name, NAMESPACE).status.conditions is None


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError", "InvalidImageName"])
def test_a_container_that_cannot_start_waits_with_a_reason(cluster: Cluster, reason: str) -> None:
    cluster.server.faults.add_pod(PodFault(waiting=reason, message="why"))
    cluster.create()

    def waiting() -> Any:
        return cluster.pods() and (cluster.pods()[0].status.container_statuses or [None])[0]

    wait_until(lambda: waiting() and waiting().state.waiting.reason == reason, "the container waits")
    assert cluster.pods()[0].status.phase == "Pending"


def test_an_unschedulable_pod_says_so(cluster: Cluster) -> None:
    cluster.server.faults.add_pod(PodFault(unschedulable="0/3 nodes are available: 3 Insufficient cpu."))
    cluster.create()
    wait_until(lambda: cluster.pods() and cluster.pods()[0].status.conditions, "the scheduler has tried")
    condition = cluster.pods()[0].status.conditions[0]
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")


def test_a_child_that_ran_out_of_memory_is_reported_with_exit_0(cluster: Cluster) -> None:
    cluster.server.faults.add_pod(PodFault(ends=("OOMKilled", 0)))
    cluster.create("exit 0")
    assert (cluster.ended().exit_code, cluster.ended().reason) == (0, "OOMKilled")


def test_a_program_that_does_not_exist_ends_with_128(cluster: Cluster) -> None:
    container = cluster.manifest()["spec"]["template"]["spec"]["containers"][0] | {"command": ["no-such-program"]}
    cluster.create(pod={"containers": [container]})
    assert (cluster.ended().exit_code, cluster.ended().reason) == (128, "StartError")
    assert cluster.condition("Failed")


def test_an_eviction_is_told_from_a_killed_program(cluster: Cluster) -> None:
    cluster.create(WAITS)
    cluster.pod("Running")
    cluster.server.evict(cluster.name)
    pod = cluster.pod("Failed")
    assert pod.status.reason == "Evicted"
    assert ("DisruptionTarget", "True") in {(found.type, found.status) for found in pod.status.conditions}
    assert cluster.ended().exit_code == 137
    assert cluster.condition("Failed").reason == "PodFailurePolicy"


def test_a_lost_node_says_nothing_until_it_is_back(cluster: Cluster) -> None:
    container = cluster.manifest()["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["sh", "-c", "while [ ! -e /work/go ]; do sleep 0.05; done; exit 4"]}
    container["volumeMounts"] = [{"name": "work", "mountPath": "/work"}]
    cluster.create(pod={"containers": [container], "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}]})
    cluster.pod("Running")
    cluster.server.lose_node(cluster.name)
    lost = cluster.server.running(cluster.name).container
    assert lost
    (lost.volumes["/work"] / "go").touch()
    wait_until(lambda: lost.exit_code == 4, "the program has ended")
    cluster.server.advance(41)
    ready = {found.type: found.status for found in cluster.pod("Running").status.conditions}["Ready"]
    assert ready == "False"
    cluster.server.advance(300)
    wait_until(lambda: cluster.pods()[0].metadata.deletion_timestamp, "the pod is marked")
    assert cluster.pods()[0].status.phase == "Running"
    with pytest.raises(ApiException) as error:
        cluster.log()
    assert error.value.status == 500
    cluster.server.restore_node(cluster.name)
    wait_until(lambda: not cluster.pods(), "the pod is gone")
    assert cluster.condition("Failed").reason == "PodFailurePolicy"


def test_the_address_of_a_pod_leads_to_its_runner_unless_the_node_is_lost(cluster: Cluster) -> None:
    source = (
        "import json, os, socket\n"
        "server = socket.create_server(('', int(os.environ['RUNNER_PORT'])))\n"
        "print(json.dumps({'port': server.getsockname()[1]}), flush=True)\n"
        "while True: server.accept()[0].sendall(b'hello')\n"
    )
    container = cluster.manifest()["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["python3", "-c", source], "ports": [{"containerPort": 8700}]}
    container["env"] = [{"name": "RUNNER_PORT", "value": "8700"}]
    cluster.create(pod={"containers": [container]})
    address = (cluster.pod("Running").status.pod_ip, 8700)

    def answer(timeout_s: float) -> bytes:
        try:
            with socket.create_connection(address, timeout=timeout_s) as connected:
                return connected.recv(5)
        except OSError as error:
            return type(error).__name__.encode()

    wait_until(lambda: answer(20) == b"hello", "the program listens")
    cluster.server.lose_node(cluster.name)
    assert answer(0.2) == b"TimeoutError"
    cluster.server.remove_node(cluster.name)
    wait_until(lambda: not cluster.pods(), "the pod is gone")
    assert cluster.condition("Failed").reason == "PodFailurePolicy"


def test_objects_go_with_their_owner_and_never_have_one_in_another_namespace(cluster: Cluster) -> None:
    leases = cluster.leases
    for namespace in (NAMESPACE, "agents"):
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=cluster.name))
        anchor = leases.create_namespaced_lease(namespace, lease)
        body = cluster.manifest(WAITS, pod={"terminationGracePeriodSeconds": 1})
        owner = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": cluster.name}
        body["metadata"]["ownerReferences"] = [{**owner, "uid": anchor.metadata.uid}]
        cluster.jobs.create_namespaced_job(NAMESPACE, client.V1Job.from_dict(body))
        if namespace == NAMESPACE:
            cluster.pod("Running")
            leases.delete_namespaced_lease(cluster.name, NAMESPACE)

        def gone() -> bool:
            return (
                not cluster.pods()
                and not cluster.jobs.list_namespaced_job(NAMESPACE, label_selector=cluster.label).items
            )

        wait_until(gone, "Job and pod are gone")
