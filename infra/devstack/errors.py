"""What keeps the stack from starting."""


class StackError(Exception):
    """The message is one line for people: what is wrong and, where there is something, what to do about it."""
