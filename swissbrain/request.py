"""Request to the API as a value, so that building a request, sending it and testing it stay apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Request(Generic[T]):
    """HTTP request and the type of its response; NoneType if the response has no JSON body.

    `json` is the value of the body, `key` the idempotency key. `path` is quoted already.
    `redirects`: the answer is a redirect (307). `accept`: content type to ask for; None means the default of the API.
    `held_s`: seconds for which the API may hold the response back.
    """

    response: type[T]
    method: str
    path: str
    json: object = None
    params: Mapping[str, str] | None = None
    key: str | None = None
    redirects: bool = False
    accept: str | None = None
    held_s: float = 0.0
