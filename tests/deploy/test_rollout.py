"""How far a rollout is, judged from objects as controllers and kubelets leave them."""

from typing import Any

import pytest

from infra.deploy.rollout import judge

DEPLOYMENT = {"uid": "d", "name": "api", "generation": 2, "annotations": {"deployment.kubernetes.io/revision": "2"}}
DONE = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}


def deployment(replicas: int = 2, **status: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "metadata": DEPLOYMENT, "spec": {"replicas": replicas}, "status": {**DONE, **status}}


def replica_set(revision: str) -> dict[str, Any]:
    notes = {"deployment.kubernetes.io/revision": revision}
    meta = {"uid": f"rs{revision}", "name": f"api-{revision}", "annotations": notes, "ownerReferences": [{"uid": "d"}]}
    return {"kind": "ReplicaSet", "metadata": meta}


def pod(revision: str, reason: str, last: dict[str, Any] | None = None) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "back-off\nrestarting"}}
    status = {"state": state, "lastState": {"terminated": last} if last else {}}
    meta = {"uid": "p", "name": f"api-{revision}-x", "ownerReferences": [{"uid": f"rs{revision}"}]}
    return {"kind": "Pod", "metadata": meta, "status": {"containerStatuses": [status]}}


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),  # still the status of the former template
        ({"replicas": 3}, False),  # an old pod is left
        ({"updatedReplicas": 1}, False),
        ({"readyReplicas": 1}, False),
    ],
)
def test_a_rollout_is_done_when_all_pods_are_new_and_ready_and_no_other_is_left(
    change: dict[str, int], done: bool
) -> None:
    assert judge(deployment(**change), []).done is done


def test_a_deployment_that_an_autoscaler_has_set_to_zero_is_done() -> None:
    nothing = {
        "kind": "Deployment",
        "metadata": DEPLOYMENT,
        "spec": {"replicas": 0},
        "status": {"observedGeneration": 2},
    }
    assert judge(nothing, []).done


def test_a_crashing_pod_of_the_former_template_is_no_failure() -> None:
    others = [replica_set("1"), replica_set("2"), pod("1", "CrashLoopBackOff")]
    assert judge(deployment(readyReplicas=1), others).failure == ""


def test_reasons_name_the_pod_and_why_on_one_line() -> None:
    others = [replica_set("2"), pod("2", "ContainerCreating")]
    assert judge(deployment(readyReplicas=1), others).failure == ""
    others = [replica_set("2"), pod("2", "ErrImagePull")]
    assert judge(deployment(readyReplicas=1), others).failure == "pod api-2-x: ErrImagePull: back-off restarting"
    others = [replica_set("2"), pod("2", "CrashLoopBackOff", {"exitCode": 2, "reason": "Error"})]
    assert judge(deployment(readyReplicas=1), others).failure.startswith(
        "pod api-2-x: CrashLoopBackOff: exit code 2 (Error)"
    )


@pytest.mark.parametrize(
    ("condition", "failure"),
    [
        (
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"},
            "FailedCreate: quota",
        ),
        ({"type": "Progressing", "status": "False", "reason": "Deadline", "message": "late"}, "Deadline: late"),
        ({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}, ""),
    ],
)
def test_conditions_of_a_deployment_that_does_not_progress_are_failures(condition: Any, failure: str) -> None:
    assert judge(deployment(readyReplicas=1, conditions=[condition]), []).failure == failure


def test_a_stateful_set_is_done_when_its_revision_is_the_new_one() -> None:
    stateful = {**deployment(), "kind": "StatefulSet"}
    stateful["status"] |= {"currentRevision": "a", "updateRevision": "b"}
    assert not judge(stateful, []).done
    stateful["status"]["currentRevision"] = "b"
    assert judge(stateful, []).done
