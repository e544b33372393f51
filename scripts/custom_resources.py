"""Fields of the custom resources in `k8s/`, whose schemas come with their operators and not with Kubernetes.

The lists have what the manifests use, as the documentation of KEDA 2.17, of external-secrets 0.17 and of the Prometheus
operator 0.80 describes it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Shape: TypeAlias = Mapping[str, Any]
"""Allowed fields of an object: a shape, a list with the shape of its items, or the type of a value."""

BEHAVIOR = {
    "scaleDown": {
        "stabilizationWindowSeconds": int,
        "policies": [{"type": str, "value": int, "periodSeconds": int}],
    }
}
REDIS_TRIGGER = {
    "type": str,
    "name": str,
    "useCachedMetrics": bool,
    "authenticationRef": {"name": str},
    # KEDA takes all values of a trigger as texts.
    "metadata": {"listName": str, "listLength": str, "enableTLS": str},
}
SPECS: Mapping[tuple[str, str], Shape] = {
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "scaleTargetRef": {"name": str},
        "pollingInterval": int,
        "cooldownPeriod": int,
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "advanced": {
            "scalingModifiers": {"formula": str, "target": str, "metricType": str},
            "horizontalPodAutoscalerConfig": {"behavior": BEHAVIOR},
        },
        "triggers": [REDIS_TRIGGER],
    },
    ("keda.sh/v1alpha1", "TriggerAuthentication"): {
        "secretTargetRef": [{"parameter": str, "name": str, "key": str}],
    },
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": {"matchLabels": {"app.kubernetes.io/name": str}},
        "podMetricsEndpoints": [{"port": str, "path": str, "interval": str}],
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "groups": [
            {
                "name": str,
                "rules": [
                    {
                        "record": str,
                        "alert": str,
                        "expr": str,
                        "for": str,
                        "labels": {"severity": str},
                        "annotations": {"summary": str, "runbook": str},
                    }
                ],
            }
        ],
    },
    ("external-secrets.io/v1", "ExternalSecret"): {
        "refreshInterval": str,
        "secretStoreRef": {"kind": str, "name": str},
        "target": {"name": str, "creationPolicy": str},
        "dataFrom": [{"extract": {"key": str}}],
    },
}


def is_known(each: Mapping[str, Any]) -> bool:
    """Return whether an object is one of the custom resources."""
    return (each["apiVersion"], each["kind"]) in SPECS


def unknown_fields(each: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each field of a custom resource that its list does not have, or that has another type."""
    if is_known(each):
        yield from _compare(each.get("spec"), SPECS[each["apiVersion"], each["kind"]], ".spec")


def _compare(value: object, shape: Any, path: str) -> Iterator[str]:
    if isinstance(shape, type):
        if type(value) is not shape:
            yield f"{path} must be of the type {shape.__name__}, not {type(value).__name__}"
    elif isinstance(shape, list):
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            yield from _compare(item, shape[0], f"{path}[{number}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in shape:
                yield f"{path}.{name} is not in the list of fields"
            else:
                yield from _compare(item, shape[name], f"{path}.{name}")
    else:
        yield f"{path} must be an object"
