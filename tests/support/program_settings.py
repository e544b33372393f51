"""Settings that each program reads, for the checks of manifests and units."""

from collections.abc import Callable

from edge_api.settings import EdgeSettings, ServerSettings
from infra.egress.settings import EgressSettings, NetworkSettings
from infra.gateway.settings import GatewaySettings
from infra.llm_http.settings import LlmSettings
from infra.qstash_local.settings import QStashLocalSettings
from infra.settings import Env, QStashAccess, QStashSettings, RedisTcpSettings, S3Settings, StoreSettings
from worker.agent.settings import AgentSettings
from worker.browser.settings import BrowserSettings
from worker.fetch.settings import FetchSettings
from worker.settings import WorkerSettings

Reader = Callable[[Env], object]

PROGRAMS: dict[str, tuple[Reader, ...]] = {
    "worker": (
        AgentSettings.from_env,
        BrowserSettings.from_env,
        FetchSettings.from_env,
        LlmSettings.from_env,
        NetworkSettings.from_env,
        QStashAccess.for_publishing,
        RedisTcpSettings.from_env,
        S3Settings.from_env,
        StoreSettings.from_env,
        WorkerSettings.from_env,
    ),
    "api": (EdgeSettings.from_env, ServerSettings.from_env),
    "egress": (EgressSettings.from_env,),
    "gateway": (GatewaySettings.from_env,),
    "qstash": (QStashLocalSettings.from_env,),
    "recovery": (QStashSettings.from_env,),
    "sweep": (RedisTcpSettings.from_env, S3Settings.from_env, StoreSettings.from_env),
    "valkey_backup save": (RedisTcpSettings.from_env, S3Settings.from_env),
    "valkey_backup restore": (S3Settings.from_env,),
}
"""Settings that each program reads; `worker` with its sandbox, not with Kubernetes."""
