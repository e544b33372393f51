"""Errors of the API server with the bodies that a real one sends."""

from typing import Any, TypeAlias

Obj: TypeAlias = dict[str, Any]


class KubeError(Exception):
    """Error answer. `retry_after_s` becomes the header and the detail of the same name."""

    def __init__(
        self, code: int, reason: str, message: str, details: Obj | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details
        self.retry_after_s = retry_after_s

    def status(self) -> Obj:
        """Return the body, an object of the kind Status."""
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }
        details = dict(self.details or {})
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        return {**status, "details": details} if details else status


def bad_request(message: str) -> KubeError:
    """Return the error for a request that cannot be understood."""
    return KubeError(400, "BadRequest", message)


def not_found(resource: str, name: str, group: str = "") -> KubeError:
    """Return the error for an object that does not exist."""
    details = {"name": name, "kind": resource, **({"group": group} if group else {})}
    return KubeError(404, "NotFound", f'{_qualified(resource, group)} "{name}" not found', details)


def already_exists(resource: str, name: str, group: str = "") -> KubeError:
    """Return the error for a second object of the same name."""
    details = {"name": name, "kind": resource, **({"group": group} if group else {})}
    return KubeError(409, "AlreadyExists", f'{_qualified(resource, group)} "{name}" already exists', details)


def conflict(resource: str, name: str, why: str, group: str = "") -> KubeError:
    """Return the error of optimistic concurrency."""
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}'
    return KubeError(409, "Conflict", message, {"name": name, "kind": resource})


def expired(version: int, oldest: int) -> KubeError:
    """Return the error for a resourceVersion that is not kept any more."""
    return KubeError(410, "Expired", f"too old resource version: {version} ({oldest})")


def too_new(version: int, current: int) -> KubeError:
    """Return the error for a resourceVersion that this server has not seen yet."""
    details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
    message = f"Timeout: Too large resource version: {version}, current: {current}"
    return KubeError(504, "Timeout", message, details, retry_after_s=1)


def invalid(kind: str, group: str, name: str, causes: list[tuple[str, str]]) -> KubeError:
    """Return the error for an object that breaks rules, as pairs of field and message."""
    listed = [{"reason": "FieldValueInvalid", "message": message, "field": field} for field, message in causes]
    texts = [f"{field}: {message}" for field, message in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = {"name": name, "group": group, "kind": kind, "causes": listed}
    return KubeError(422, "Invalid", f'{kind}{"." + group if group else ""} "{name}" is invalid: {text}', details)


def forbidden(resource: str, group: str, name: str, why: str) -> KubeError:
    """Return the error for what the rules of access or an admission plugin do not allow."""
    details = {"name": name, "group": group, "kind": resource}
    named = f' "{name}"' if name else ""
    return KubeError(403, "Forbidden", f"{_qualified(resource, group)}{named} is forbidden: {why}", details)


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource
