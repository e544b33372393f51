"""Entry point of the command `swissbrain`.

A module outside the package, because its imports take most of the time until the command begins, and Ctrl-C during them
must not print a traceback either.
"""

import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as `swissbrain.cli` exits later."""


def main() -> None:
    """Import the command, run it and exit."""
    try:
        from swissbrain.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
