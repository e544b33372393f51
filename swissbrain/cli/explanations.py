"""Errors of the client with what helps: where the address and the token come from, and which step is meant."""

import re
from http import HTTPStatus

from swissbrain.access import TOKEN, URL
from swissbrain.cli.access import fingerprint, used
from swissbrain.errors import ApiError, ClientError, ProtocolError, Unreachable

_STEP = re.compile(r"\$\.plan\[([0-9]+)\]")
_LIMIT = re.compile(r"\$\.limits\.(\w+)")
_NO_KIND = {"", "about:blank"}


def explain(error: ClientError) -> str:
    """Return the message of an error, with the setting that helps where one does."""
    message = str(error)
    if isinstance(error, ApiError):
        if step := _STEP.match(error.field or ""):
            message += f": step {int(step[1]) + 1} as this command counts, from 1; $.plan[…] counts from 0"
        elif error.field == "$.from_step":
            message += "; the API counts steps from 0, --from-step from 1"
        elif limit := _LIMIT.fullmatch(error.field or ""):
            message += f"; the limit is given by --limit {limit[1]}=…"
    access = used.get()
    if access is None:
        return message
    if isinstance(error, ApiError) and _concerns_token(error):
        return f"{message} (the token is {TOKEN} from {access.source}, SHA-256 {fingerprint(access.token)})"
    no_route = isinstance(error, ApiError) and error.status == HTTPStatus.NOT_FOUND and error.kind in _NO_KIND
    if no_route or isinstance(error, ProtocolError):
        return f"{message}; is {access.url} the address of the API, without '/agent'? It is {URL} from {access.source}"
    if isinstance(error, Unreachable) and access.is_dev_stack:
        return f"{message}; is 'swissbrain dev' running? The address is from {access.source}"
    return message


def _concerns_token(error: ApiError) -> bool:
    # An object store refuses with 403 as well, but without a kind, and it never sees the token.
    return error.status == HTTPStatus.UNAUTHORIZED or (error.status == HTTPStatus.FORBIDDEN and bool(error.kind))
