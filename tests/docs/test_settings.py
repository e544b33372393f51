"""Environment variables: those that the code reads, and those that the documentation names."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_api.settings import EdgeSettings, ServerSettings
from infra.egress.settings import EgressSettings, NetworkSettings
from infra.gateway.settings import GatewaySettings
from infra.k8s_executor.settings import KubernetesSettings
from infra.llm_http.settings import LlmSettings
from infra.qstash_local.settings import QStashLocalSettings
from infra.settings import Env, RedisTcpSettings, S3Settings, StoreSettings
from tests.docs.pages import DOCS, PAGES, ROOT, code, codes_in, files, name_of, rows
from tests.support.recorded_env import RecordedEnv
from worker.agent.settings import AgentSettings
from worker.browser.settings import BrowserSettings
from worker.fetch.settings import FetchSettings
from worker.settings import WorkerSettings

PREFIXES = (
    "AGENT|BROWSER|EDGE|EGRESS|HTTP_FETCH|KUBERNETES|LLM|WORKER|GATEWAY|S3|REDIS|UPSTASH|SWISSBRAIN|RETENTION|CHAOS|LAMBDA|"
    "AWS|TOOLS|QSTASH|OTEL"
)
VARIABLE = re.compile(rf"(?<![\w$])(?:(?:{PREFIXES})_[A-Z\d_]*[A-Z\d]|KUBECONFIG)\b")
NOT_OURS = {
    "AWS_LAMBDA_EXEC_WRAPPER",
    "AWS_LWA_INVOKE_MODE",
    "AWS_LWA_READINESS_CHECK_PATH",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
}
"""Variables that AWS and OpenTelemetry read."""
SHELL_ONLY = {"REDIS_PASSWORD"}
"""Variables of an example in a shell."""
DIRECT = {
    "SWISSBRAIN_API_URL",
    "SWISSBRAIN_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "LAMBDA_TASK_ROOT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
}
"""Variables that are read without a settings class."""

VALID = {
    "EGRESS_TOKEN_KEY": "k" * 32,
    "EDGE_PUBLIC_URL": "https://127.0.0.1",
    "GATEWAY_REDIS_URL": "redis://127.0.0.1",
    "GATEWAY_TOKEN": "token",
    "KUBERNETES_IMAGE": f"tools@sha256:{'0' * 64}",
    "LLM_BASE_URL": "https://127.0.0.1",
    "LLM_MODEL": "m",
    "QSTASH_CURRENT_SIGNING_KEY": "current" * 5,
    "QSTASH_LOCAL_REDIS_URL": "redis://127.0.0.1",
    "QSTASH_NEXT_SIGNING_KEY": "next" * 8,
    "QSTASH_TOKEN": "token" * 4,
    "REDIS_URL": "redis://127.0.0.1",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "secret",
    "SWISSBRAIN_API_KEYS": '[{"user": "ada", "scopes": ["runs:read"], "sha256": "' + "0" * 64 + '"}]',
    "UPSTASH_REDIS_REST_TOKEN": "token",
    "UPSTASH_REDIS_REST_URL": "https://127.0.0.1",
    "WORKER_HEALTH_PORT": "8080",
}
READERS: tuple[Callable[[Env], object], ...] = (
    EdgeSettings.from_env,
    ServerSettings.from_env,
    AgentSettings.from_env,
    BrowserSettings.from_env,
    WorkerSettings.from_env,
    lambda env: KubernetesSettings.from_env(env, StoreSettings.from_env(env), S3Settings.from_env(env)),
    EgressSettings.from_env,
    NetworkSettings.from_env,
    GatewaySettings.from_env,
    LlmSettings.from_env,
    QStashLocalSettings.from_env,
    FetchSettings.from_env,
    RedisTcpSettings.from_env,
    S3Settings.from_env,
    StoreSettings.from_env,
)


def read_by_the_code() -> set[str]:
    env = RecordedEnv(VALID)
    for reader in READERS:
        reader(env)
    return env.names | DIRECT


def test_each_variable_is_in_exactly_one_table_of_the_page_on_configuration() -> None:
    tables = Counter(
        name for row in rows(DOCS / "configuration.md") for name in codes_in(row[0]) if VARIABLE.fullmatch(name)
    )
    assert set(tables) == read_by_the_code()
    assert [name for name, times in tables.items() if times > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_variable_that_a_page_names_is_read(page: Path) -> None:
    named = {name for line in code(page) for name in VARIABLE.findall(line)}
    assert named - NOT_OURS - SHELL_ONLY - read_by_the_code() - _read_by_tests() == set()


@pytest.mark.parametrize("name", sorted(DIRECT))
def test_each_variable_without_a_settings_class_is_in_the_source(name: str) -> None:
    packages = ("edge_api/", "swissbrain/", "worker/")
    sources = [path for path in files() if path.startswith(packages) and (ROOT / path).is_file()]
    assert any(name in (ROOT / path).read_text() for path in sources)


def _read_by_tests() -> set[str]:
    sources = [ROOT / path for path in files() if path.startswith("tests/chaos/") and path.endswith(".py")]
    return {name for path in sources for name in re.findall(r"\"(CHAOS_\w+)\"", path.read_text())}
