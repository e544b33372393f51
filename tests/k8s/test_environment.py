"""Environment of each container against the settings that its program reads."""

import re
from pathlib import Path

import pytest

from infra.k8s_executor.settings import KubernetesSettings
from infra.settings import S3Settings, StoreSettings
from scripts import check_manifests
from tests.docs.pages import documented_defaults
from tests.k8s import rendering
from tests.k8s.rendering import OVERLAYS, containers, overlay, source
from tests.support.program_settings import PROGRAMS, Reader
from tests.support.recorded_env import RecordedEnv

WORKER: tuple[Reader, ...] = (
    *PROGRAMS["worker"],
    lambda env: KubernetesSettings.from_env(env, StoreSettings.from_env(env), S3Settings.from_env(env)),
)
READERS: dict[str, tuple[Reader, ...]] = {
    "agent-worker/worker": WORKER,
    "agent-api/api": PROGRAMS["api"],
    "agent-egress/egress": PROGRAMS["egress"],
    "agent-sweep/sweep": PROGRAMS["sweep"],
    "agent-qstash/qstash": PROGRAMS["qstash"],
    "valkey-gateway/gateway": PROGRAMS["gateway"],
    "valkey-backup/backup": PROGRAMS["valkey_backup save"],
    "valkey-restore/restore": PROGRAMS["valkey_backup restore"],
    "valkey/valkey": (),
}
"""Settings that the program of each container reads."""
SECRETS = {
    "EDGE_STREAM_TOKEN_KEY": "k" * 40,
    "EDGE_WEBHOOK_KEY": "w" * 40,
    "EGRESS_TOKEN_KEY": "k" * 40,
    "GATEWAY_REDIS_URL": "redis://default:secret@valkey.agents.svc:6379",
    "QSTASH_CURRENT_SIGNING_KEY": "c" * 40,
    "QSTASH_LOCAL_REDIS_URL": "redis://default:secret@valkey.agents.svc:6379",
    "QSTASH_NEXT_SIGNING_KEY": "n" * 40,
    "QSTASH_TOKEN": "t" * 40,
    "REDIS_URL": "rediss://default:secret@redis.example:6379",
    "SWISSBRAIN_API_KEYS": '[{"user": "ada", "scopes": ["runs:read"], "sha256": "' + "0" * 64 + '"}]',
}
"""Values of Secrets that must have a form."""
LANGUAGE_MODEL = {"LLM_BASE_URL": "https://models.example/v1", "LLM_MODEL": "apertus-70b"}

pytestmark = rendering.needs_tools


def filled_in(variables: dict[str, dict[str, object]]) -> dict[str, str]:
    """Return the environment of a container, with values for its Secrets."""
    return {name: str(entry.get("value", SECRETS.get(name, "secret"))) for name, entry in variables.items()}


def read_by_the_shell(container: check_manifests.Object) -> set[str]:
    """Return the variables in the script of a container, if it runs one."""
    if container["command"][0] != "sh":
        return set()
    (script,) = (each["data"]["start.sh"] for each in source("components/valkey/valkey.yaml") if "data" in each)
    return set(re.findall(r"\$([A-Z_]+)", script))


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_variable_that_is_set_is_read_and_gives_valid_settings(name: str) -> None:
    found = containers(overlay(name))
    assert set(found) <= set(READERS)
    for container, readers in READERS.items():
        if container not in found:
            continue
        variables = filled_in(rendering.environment(found[container]))
        env = RecordedEnv(variables | (LANGUAGE_MODEL if readers is WORKER else {}))
        for reader in readers:
            reader(env)
        assert set(variables) - env.names - read_by_the_shell(found[container]) == set(), container


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_variable_that_is_read_is_set_or_has_a_documented_default(name: str) -> None:
    defaults = documented_defaults()
    for container, each in containers(overlay(name)).items():
        variables = filled_in(rendering.environment(each))
        env = RecordedEnv(variables | LANGUAGE_MODEL)
        for reader in READERS[container]:
            reader(env)
        missing = {name for name in env.names - set(variables) if not defaults.get(name)}
        required = {name for name in env.names - set(variables) if defaults.get(name) == "required"}
        assert missing | required == set(), container
        assert read_by_the_shell(each) <= set(variables)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_example_has_each_secret_that_an_overlay_names(name: str) -> None:
    example = {each["metadata"]["name"]: set(each["stringData"]) for each in source("examples/secrets.yaml")}
    for secret, key in _secret_keys(overlay(name)):
        assert key in example[secret], f"{secret} lacks {key}"


def test_the_example_has_no_other_secret() -> None:
    named = {pair for name in OVERLAYS for pair in _secret_keys(overlay(name))}
    example = source("examples/secrets.yaml")
    assert {(each["metadata"]["name"], key) for each in example for key in each["stringData"]} == named
    assert {each["metadata"]["namespace"] for each in example} == {"agents"}


def _secret_keys(objects: tuple[check_manifests.Object, ...]) -> set[tuple[str, str]]:
    found = [ref for each in objects for _, ref in check_manifests.fields(each, "secretKeyRef")]
    found += [ref for each in objects for _, refs in check_manifests.fields(each, "secretTargetRef") for ref in refs]
    return {(ref["name"], ref["key"]) for ref in found}


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_stands_in_the_manifests(name: str) -> None:
    assert [each for each in overlay(name) if each["kind"] == "Secret"] == []
    environments = [rendering.environment(each) for each in containers(overlay(name)).values()]
    plain = {variable for each in environments for variable, entry in each.items() if "value" in entry}
    assert {variable for variable in plain if re.search("_KEY|SECRET|TOKEN|PASSWORD|REDIS_URL", variable)} == set()


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_folder_that_a_program_writes_to_is_a_volume(name: str) -> None:
    for container, each in containers(overlay(name)).items():
        mounts = {mount["mountPath"] for mount in each["volumeMounts"]}
        assert "/tmp" in mounts, container
        root = rendering.environment(each).get("WORKER_ROOT", {"value": "/tmp"})["value"]
        assert any(Path(root).is_relative_to(mount) for mount in mounts)


@pytest.mark.parametrize("name", ["in-cluster", "kind"])
def test_the_api_and_the_stand_in_of_qstash_know_each_other(name: str) -> None:
    found = containers(overlay(name))
    api = rendering.environment(found["agent-api/api"])
    stand_in = rendering.environment(found["agent-qstash/qstash"])
    services = {
        f"http://{each['metadata']['name']}.agents.svc": each["spec"]["ports"][0]["port"]
        for each in overlay(name)
        if each["kind"] == "Service"
    }
    assert services[api["EDGE_PUBLIC_URL"]["value"]] == 80
    address, _, port = api["QSTASH_URL"]["value"].rpartition(":")
    assert services[address] == int(port) == int(stand_in["QSTASH_LOCAL_PORT"]["value"])
    shared = {"QSTASH_TOKEN", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"}
    assert {key: api[key] for key in shared} == {key: stand_in[key] for key in shared}
    worker = rendering.environment(found["agent-worker/worker"])
    assert all(worker[key] == api[key] for key in ("QSTASH_URL", "EDGE_PUBLIC_URL", "QSTASH_TOKEN"))
