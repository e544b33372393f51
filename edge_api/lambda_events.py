"""Which of the events that reach a Lambda function are HTTP requests, and the answer to the others."""

WARM = {"warm": True}
"""The answer to an event that is no request, such as a scheduled warm-up."""


def is_request(event: object) -> bool:
    """Whether an event comes from a function URL, an API gateway or a load balancer."""
    return isinstance(event, dict) and "requestContext" in event
