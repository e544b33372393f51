"""Pod Security admission: the level `restricted`, for namespaces that enforce it with a label."""

from tests.support.kube.errors import Obj
from tests.support.kube.store import Store

LABEL = "pod-security.kubernetes.io/enforce"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def refusal(store: Store, pod: Obj) -> str:
    """Return why the namespace does not allow the pod, an empty text if it does."""
    namespace = store.find("namespaces", "", pod["metadata"]["namespace"])
    if namespace is None or namespace["metadata"].get("labels", {}).get(LABEL) != "restricted":
        return ""
    found = _violations(pod["spec"])
    return f'violates PodSecurity "restricted:latest": {", ".join(found)}' if found else ""


def _violations(spec: Obj) -> list[str]:
    found = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    volumes = spec.get("volumes") or []
    found += [f'restricted volume types (volume "{one["name"]}")' for one in volumes if not VOLUMES & one.keys()]
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        found += _container_violations(container, spec.get("securityContext") or {})
    return found


def _container_violations(container: Obj, context: Obj) -> list[str]:
    own = container.get("securityContext") or {}
    capabilities, named = own.get("capabilities") or {}, f'(container "{container["name"]}")'
    seccomp = own.get("seccompProfile", context.get("seccompProfile")) or {}
    rules = {
        "allowPrivilegeEscalation != false": own.get("allowPrivilegeEscalation") is False,
        "privileged": not own.get("privileged"),
        "unrestricted capabilities": "ALL" in capabilities.get("drop", [])
        and not set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
        "runAsNonRoot != true": own.get("runAsNonRoot", context.get("runAsNonRoot")) is True,
        "runAsUser=0": own.get("runAsUser", context.get("runAsUser")) != 0,
        "seccompProfile": seccomp.get("type") in {"RuntimeDefault", "Localhost"},
    }
    return [f"{name} {named}" for name, kept in rules.items() if not kept]
