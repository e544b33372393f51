"""Name the uids of pods, as the sandbox does: `python3 users.py /etc`, in the image of the tools.

A pod runs under one of 50,000 uids (`FIRST_UID` and `UIDS` in infra/k8s_executor/job.py), and its root file system is
read-only, so that each uid needs its entry beforehand. All have one name and one home.
"""

import sys
from pathlib import Path

FIRST_UID, UIDS = 10_000, 50_000
NAME, HOME, SHELL = "user", "/workspace", "/bin/bash"

folder = Path(sys.argv[1])
with (folder / "passwd").open("a") as passwd, (folder / "group").open("a") as group:
    for uid in range(FIRST_UID, FIRST_UID + UIDS):
        passwd.write(f"{NAME}:x:{uid}:{uid}:{NAME}:{HOME}:{SHELL}\n")
        group.write(f"{NAME}:x:{uid}:\n")
