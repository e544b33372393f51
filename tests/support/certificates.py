"""Certificates for TLS servers of tests, made by openssl."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is needed to create certificates")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*args: str | Path) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60)


def new_authority(folder: Path, *, is_strict: bool = True) -> None:
    """Create `ca.pem` and `ca.key`. Without `is_strict` the certificate lacks what Python 3.13 demands by default."""
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign") if is_strict else ()
    openssl("req", "-x509", *_KEY, "-subj", "/CN=authority", "-days", "30", *usage,
            "-keyout", folder / "ca.key", "-out", folder / "ca.pem")  # fmt: skip


def server_context(folder: Path, name: str, *validity: str) -> ssl.SSLContext:
    """Return the context of a server whose certificate is for `name`, signed by the authority of the folder."""
    key, request, certificate = (folder / f"{name}.{suffix}" for suffix in ("key", "csr", "pem"))
    openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    extensions = ("subjectAltName=DNS:" + name, "basicConstraints=CA:FALSE", "authorityKeyIdentifier=keyid")
    (folder / "extensions").write_text("\n".join(extensions))
    openssl("x509", "-req", "-in", request, "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial",
            "-extfile", folder / "extensions", "-out", certificate, *(validity or ("-days", "20")))  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
