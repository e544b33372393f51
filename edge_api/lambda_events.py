"""Events that reach a Lambda function: HTTP requests, and warm-ups."""

WARM = {"warm": True}
"""Response to an event that is not an HTTP request, such as a scheduled warm-up."""


def is_request(event: object) -> bool:
    """Return whether an event comes from a function URL, an API gateway or a load balancer."""
    return isinstance(event, dict) and "requestContext" in event
