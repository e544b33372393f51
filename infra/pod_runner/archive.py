"""Archive of the runner: `python -m infra.pod_runner.archive FILE` writes one file that `python FILE` runs.

Modules that are shared with the worker are in it under their own names. Their packages are there without
`__init__.py`, which would import the worker's libraries.
"""

import importlib.util
import marshal
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = (
    "infra/contract/errors.py",
    "infra/contract/execution.py",
    "infra/contract/paths.py",
    "infra/folders.py",
    "infra/local_executor/exchange.py",
    "infra/local_executor/guard.py",
    "infra/local_executor/interpreters.py",
    "infra/local_executor/launcher.py",
    "infra/local_executor/machine.py",
    "infra/local_executor/output.py",
    "infra/local_executor/run_dirs.py",
    "infra/local_executor/sandbox.py",
    "infra/pod_runner/__main__.py",
    "infra/pod_runner/call.py",
    "infra/pod_runner/connections.py",
    "infra/pod_runner/control.py",
    "infra/pod_runner/line_log.py",
    "infra/pod_runner/private_files.py",
    "infra/pod_runner/program.py",
    "infra/pod_runner/relay.py",
    "infra/pod_runner/session.py",
    "infra/pod_runner/task.py",
    "infra/pod_runner/transfer.py",
    "infra/pod_runner/workspace.py",
    "infra/workspace/limits.py",
    "infra/workspace/tree.py",
)
_UNCHECKED = 1
"""Flag of a compiled module that is not compared with its source (PEP 552)."""
_START = """
import signal
# The kernel drops signals to PID 1 that are neither handled nor blocked, and the imports below take a while.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
import runpy
runpy.run_module('infra.pod_runner', run_name='__main__', alter_sys=True)
"""


def write(target: Path) -> None:
    """Write the archive. The same sources make the same bytes."""
    folders = sorted({f"{folder.as_posix()}/" for name in MODULES for folder in Path(name).parents[:-1]})
    contents = dict.fromkeys(folders, b"")  # zipimport finds a package without `__init__.py` by its folder
    contents |= {name: (ROOT / name).read_bytes() for name in MODULES} | {"__main__.py": _START.encode()}
    # Another version of Python ignores the compiled modules; with this one the start takes half the time.
    contents |= {f"{name}c": _compiled(name) for name in MODULES}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o755 if name.endswith("/") else 0o644) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)


def _compiled(name: str) -> bytes:
    code = compile((ROOT / name).read_bytes(), name, "exec", dont_inherit=True)
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little") + bytes(8)
    return header + marshal.dumps(code, 2)  # later versions depend on the number of references


if __name__ == "__main__":
    write(Path(sys.argv[1]))
