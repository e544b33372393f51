"""The command `swissbrain` as a user starts it: a separate process in a separate folder."""

import os
import subprocess
import sys
from pathlib import Path

ALONE = {name: value for name, value in os.environ.items() if not name.startswith(("SWISSBRAIN_", "COV_"))}


def swissbrain(folder: Path, *words: str, timeout_s: float = 100) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "swissbrain", *words],
        cwd=folder,
        env=ALONE,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start the command and return its process."""
    command = [sys.executable, "-m", "swissbrain", *words]
    return subprocess.Popen(command, cwd=folder, env=ALONE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
