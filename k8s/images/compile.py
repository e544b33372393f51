"""Compile the modules that packages import, their own included: `python compile.py PACKAGE…`, in a build stage.

Modules that nothing imports stay uncompiled: the Kubernetes client alone has 700 of them twice. Compiled files are not
compared with the times of their sources (PEP 552), because a build may change these times.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

UNCHECKED = 1
IMPORTS = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, '__path__', ()), f'{name}.', onerror=lambda _: None):
        try:
            importlib.import_module(module.name)
        except ImportError:  # it belongs to a program whose libraries are not installed here
            pass
"""


def compile_imports(packages: list[str]) -> int:
    """Compile what the packages import; return the number of modules."""
    with TemporaryDirectory() as folder:
        # One process imports everything and leaves compiled files; with a fixed seed, sets in them have one order.
        variables = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONHASHSEED": "0"}
        subprocess.run([sys.executable, "-c", IMPORTS, *packages], env=variables, check=True)
        found = [*(Path(folder) / sys.prefix.lstrip("/")).rglob("*.pyc")]
        for compiled in found:
            source = Path("/") / compiled.relative_to(folder).parent / f"{compiled.name.split('.')[0]}.py"
            content = source.read_bytes()
            header = importlib.util.MAGIC_NUMBER + UNCHECKED.to_bytes(4, "little") + importlib.util.source_hash(content)
            target = Path(importlib.util.cache_from_source(str(source)))
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(header + compiled.read_bytes()[16:])
    return len(found)


if __name__ == "__main__":
    if not compile_imports(sys.argv[1:]):
        sys.exit(f"nothing was compiled below {sys.prefix}")
