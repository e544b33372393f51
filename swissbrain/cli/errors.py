"""Errors of the command that are no errors of the client."""


class CommandError(Exception):
    """Base of errors that end a command with exit code 2; the message is one line that says what to do."""
