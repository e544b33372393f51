"""Real S3 server, started like in the development stack."""

import functools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import botocore.session

from infra.devstack import s3_server as weed
from infra.devstack.port_numbers import PortReservations
from infra.settings import S3Settings
from tests.support.waiting import wait_until

BUCKET = "swissbrain-tests"
ACCESS_KEY = "access-key-of-the-tests"
SECRET_KEY = "secret-key-of-the-tests"
STARTS = 5

# A process of the product has one client, but tests build hundreds, and reading the description of S3 takes each of
# them 0.1 s of processor time.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)


def variables_of(settings: S3Settings) -> dict[str, str]:
    """Return the environment variables that a process reads these settings from."""
    return {
        "S3_BUCKET": settings.bucket,
        "S3_REGION": settings.region,
        "S3_ACCESS_KEY": settings.access_key,
        "S3_SECRET_KEY": settings.secret_key,
        "S3_ENDPOINT_URL": str(settings.endpoint_url),
    }


@contextmanager
def s3_server(tmp_dir: Path) -> Iterator[S3Settings]:
    """Run a server over `tmp_dir`. The bucket does not exist yet."""
    data = tmp_dir / "s3"
    data.mkdir(exist_ok=True)
    weed.write_config(tmp_dir / "s3.json", ACCESS_KEY, SECRET_KEY)
    reservations = PortReservations()
    try:
        process, ports = _start(tmp_dir, data, reservations)
        try:
            yield weed.settings_for(ports, BUCKET, ACCESS_KEY, SECRET_KEY)
        finally:
            _end(process, ports)
    finally:
        reservations.release()


def _start(tmp_dir: Path, data: Path, reservations: PortReservations) -> tuple[subprocess.Popen[bytes], weed.S3Ports]:
    """Start the server; try again if another program took a port between choice and start."""
    for _ in range(STARTS):
        ports = reservations.pick_s3()
        with (tmp_dir / "s3.log").open("ab") as log:
            process = subprocess.Popen(
                weed.command(data, ports, tmp_dir / "s3.json"), env=weed.environment(), cwd=data, stderr=log
            )
        try:
            wait_until(
                lambda p=process, q=ports: p.poll() is not None or weed.is_ready(q),  # type: ignore[misc]
                "the S3 server is ready",
                timeout_s=60,
            )
        except BaseException:
            _end(process, ports)
            raise
        if process.poll() is None:
            return process, ports
        _end(process, ports)
    raise AssertionError(f"the S3 server ended {STARTS} times: {(tmp_dir / 's3.log').read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes], ports: weed.S3Ports) -> None:
    process.kill()
    process.wait(20)
    for socket in weed.leftovers(ports):
        socket.unlink(missing_ok=True)
