"""The command `swissbrain`.

Exit codes: 0 done, or the run succeeded; 1 the run failed; 2 bad input, a refusal, or an unreachable API, with one
line on stderr; 3 the run was cancelled; 4 it has not ended; 130 interrupted. `exec` exits with the code of the program.
"""

import sys

from swissbrain.cli.exit_codes import INTERRUPTED


def main() -> None:
    """Run the command and exit."""
    try:
        # Here, because a Ctrl-C meanwhile must end the command without a traceback.
        from swissbrain.cli.app import run

        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        import signal

        # From here on, Ctrl-C ends the process at once: the interpreter would report it while it waits for threads.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
