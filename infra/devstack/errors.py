"""Errors of the development stack."""


class StackError(Exception):
    """The stack cannot start. The message is one line for users: the problem and, if possible, its remedy."""
