"""Everything on one virtual machine under systemd: `python3 -m deploy.vm`.

Imports only the standard library, and pure modules of `infra`, so that the first installation needs nothing but Python.
A copy of this package is part of each installed release.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before the modules, which an older one cannot import
    sys.exit("Python 3.11 or newer is needed")
