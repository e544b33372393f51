"""Access of a worker in a pod: its service account, whose token is replaced about every hour."""

from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import incluster_config

from infra.contract.errors import ExecutorUnavailable
from infra.k8s_executor.api import KubeApi
from tests.k8s_executor.rig import NAMESPACE, ClusterRig
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
