"""Access of a worker in a pod: its service account, whose token is replaced about every hour."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import incluster_config

from infra.contract.errors import ExecutorUnavailable
from infra.k8s_executor.api import KubeApi
from tests.k8s_executor.rig import NAMESPACE, ClusterRig
from tests.support.certificates import needs_openssl, new_authority, server_context
from tests.support.kube.access import Rule

ALL = Rule(["*"], ["*"])


async def test_a_token_that_was_replaced_is_read_again(
    cluster: ClusterRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    loaders: list[Any] = []
    library: Any = incluster_config.InClusterConfigLoader

    class Loader(library):  # type: ignore[misc]
        def __init__(self, **more: Any) -> None:
            super().__init__(**more | {"token_filename": str(token), "cert_filename": None})
            loaders.append(self)

        def _load_config(self) -> None:
            self.host, self.ssl_ca_cert = cluster.server.url, None
            self._read_token_file()

    monkeypatch.setattr(incluster_config, "InClusterConfigLoader", Loader)
    access = cluster.server.access
    access.add("first", "worker", ALL)
    api = await KubeApi.connect(None, NAMESPACE)
    try:
        assert await api.jobs({}) == []
        token.write_text("second")
        access.users.clear()
        access.add("second", "worker", ALL)
        with pytest.raises(ExecutorUnavailable, match="401"):
            await api.jobs({})
        (loader,) = loaders
        loader.token_expires_at -= loader._token_refresh_period  # a minute later
        assert await api.jobs({}) == []
        token.unlink()
        loader.token_expires_at -= loader._token_refresh_period
        with pytest.raises(ExecutorUnavailable, match="does not answer"):
            await api.jobs({}, patience_s=0)
    finally:
        access.users.clear()
        await api.close()


@needs_openssl
async def test_the_authority_of_a_cluster_may_lack_what_python_demands_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_authority(tmp_path, is_strict=False)
    context = server_context(tmp_path, "localhost")
    make = ssl.create_default_context

    def strict_as_from_python_3_13_on(*args: Any, **more: Any) -> ssl.SSLContext:
        made = make(*args, **more)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", strict_as_from_python_3_13_on)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"items": [], "metadata": {}}'
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        for host, reason in (("localhost", ""), ("127.0.0.1", "does not answer")):
            kubeconfig = tmp_path / "kubeconfig"
            kubeconfig.write_text(json.dumps(access_to(f"https://{host}:{port}", tmp_path / "ca.pem")))
            api = await KubeApi.connect(kubeconfig, NAMESPACE)
            try:
                if reason:
                    with pytest.raises(ExecutorUnavailable, match=reason):
                        await api.jobs({}, patience_s=0)
                else:
                    assert await api.jobs({}, patience_s=0) == []
            finally:
                await api.close()


def access_to(url: str, authority: Path) -> dict[str, Any]:
    """Return a kubeconfig."""
    return {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": str(authority)}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
