"""The scripted model of the examples, as a user starts it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "examples" / "agent" / "scripted_model.py"


@contextmanager
def scripted_model() -> Iterator[dict[str, str]]:
    """Run the scripted model on a free port; yield the variables that it prints for the worker."""
    command = [sys.executable, str(PROGRAM), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = next(line for line in process.stdout if "export" in line)
            yield dict(re.findall(r"(\w+)=(\S+)", line))
        finally:
            process.kill()
