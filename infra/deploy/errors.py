"""Errors of a deployment. Each message is one line without secrets that says what helps."""


class InvalidDescription(Exception):
    """Description of a deployment that cannot be used: bad input."""


class DeployFailed(Exception):
    """Deployment or rollback that did not reach its end."""
