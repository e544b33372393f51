"""Valkey as the pod in `k8s/components/valkey` runs it: configuration and start script, around the real server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from infra.settings import RedisTcpSettings
from tests.docs.pages import ROOT
from tests.support.redis import running, somewhere, valkey_binary

MANIFEST = ROOT / "k8s" / "components" / "valkey" / "valkey.yaml"
PASSWORD = "password-of-the-tests"
COUNTING_PASSWORD = "password-of-the-autoscaler"


@contextmanager
def valkey_pod(folder: Path) -> Iterator[RedisTcpSettings]:
    """Run the server over the folder `data` below `folder`, until the end of the block."""
    (data, config, programs) = (folder / name for name in ("data", "config", "bin"))
    for each in (data, config, programs):
        each.mkdir(exist_ok=True)
    (files,) = (each["data"] for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "ConfigMap")
    (config / "start.sh").write_text(files["start.sh"].replace("/etc/valkey", str(config)))
    link = programs / "valkey-server"
    if not link.exists():
        link.symlink_to(valkey_binary())
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "VALKEY_PASSWORD": PASSWORD,
        "AUTOSCALING_PASSWORD": COUNTING_PASSWORD,
        "VALKEY_MAXMEMORY": "256mb",
    }

    @contextmanager
    def on(port: int) -> Iterator[None]:
        place = f"bind 127.0.0.1\nport {port}\nloglevel warning\n"
        (config / "valkey.conf").write_text(files["valkey.conf"].replace("/data", str(data)) + place)
        with running(["sh", str(config / "start.sh")], port, environment):
            yield

    with somewhere(on, None) as port:
        yield RedisTcpSettings(f"redis://default:{PASSWORD}@127.0.0.1:{port}")
