"""Settings of an installation: written once, kept, completed, and never shown."""

import json

import pytest

from deploy.vm import env_files
from deploy.vm.layout import Layout
from deploy.vm.machine import Machine, UsageError
from deploy.vm.settings_files import Settings, site_values
from infra.settings import Env, QStashAccess, QStashSettings

VALUES = {
    "web.env": {"SITE_ADDRESS": "agents.example.ch"},
    "shared.env": {"S3_ACCESS_KEY": "key-of-the-store", "S3_SECRET_KEY": "secret/of+the=store"},
}


@pytest.fixture
def settings(layout: Layout) -> Settings:
    """Return the settings of an installation whose only user is ada."""
    made = Settings(layout, Machine())
    made.create(VALUES, "ada")
    made.complete()
    return made


def content(layout: Layout) -> dict[str, str]:
    return {str(path): path.read_text() for path in layout.settings.rglob("*") if path.is_file()}


def test_a_second_time_changes_nothing_and_makes_no_key(settings: Settings, layout: Layout) -> None:
    before = content(layout)
    assert settings.create({}, "ada") is None
    settings.complete()
    assert content(layout) == before


def test_nobody_else_can_read_them_and_no_output_has_a_secret(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(layout, Machine())
    token = settings.create(VALUES, "ada")
    settings.complete()
    assert token
    assert {path.stat().st_mode & 0o077 for path in layout.settings.rglob("*")} == {0}
    printed = capsys.readouterr().out
    secrets = [*settings.secrets().values(), token, "secret/of+the=store"]
    assert [secret for secret in secrets if secret in printed] == []
    assert token not in "".join(content(layout).values())


def test_what_the_operator_writes_is_kept(settings: Settings, layout: Layout) -> None:
    text = '# mine\nWORKER_SLOTS=2\nLLM_PRICES=\'{"m": {"currency": "CHF"}}\'\n'
    (layout.settings / "worker.env").write_text(text)
    settings.create({"shared.env": {"S3_BUCKET": "another"}}, "ada")
    settings.complete()
    assert (layout.settings / "worker.env").read_text() == text
    assert settings.variables("worker.env")["LLM_PRICES"] == '{"m": {"currency": "CHF"}}'
    shared = settings.variables("shared.env")
    assert (shared["S3_BUCKET"], shared["S3_SECRET_KEY"]) == ("another", "secret/of+the=store")


def test_an_upgrade_adds_the_secrets_that_it_needs_and_changes_no_other(settings: Settings, layout: Layout) -> None:
    before = settings.secrets()
    older = {name: value for name, value in before.items() if name != "qstash_token"}
    layout.secrets.write_text(json.dumps(older))
    settings.complete()
    after = settings.secrets()
    assert {name: after[name] for name in older} == older
    assert after["qstash_token"] != before["qstash_token"]
    for file in ("qstash.env", "api.env"):
        assert settings.variables(f"generated/{file}")["QSTASH_TOKEN"] == after["qstash_token"]


def test_workers_publish_the_events_of_webhooks_and_the_api_signs_and_sends_them(settings: Settings) -> None:
    api, worker = (Env(settings.variables(f"generated/{name}.env")) for name in ("api", "worker"))
    publisher, reached = QStashAccess.for_publishing(worker), QStashSettings.from_env(api)
    assert publisher
    assert reached
    assert (publisher.url, publisher.public_url) == (reached.url, reached.public_url)
    assert len(api.text("EDGE_WEBHOOK_KEY")) >= 32


def test_the_key_of_the_verification_comes_back_and_other_keys_stay(settings: Settings, layout: Layout) -> None:
    entries = json.loads(layout.api_keys.read_text())
    layout.api_keys.write_text(json.dumps([entry for entry in entries if entry["user"] == "ada"]))
    settings.complete()
    assert json.loads(layout.api_keys.read_text()) == entries


def test_keys_of_the_store_that_are_missing_are_named_before_anything_is_written(layout: Layout) -> None:
    with pytest.raises(UsageError, match=r"S3_SECRET_KEY is not set: .*shared\.env"):
        Settings(layout, Machine()).create({**VALUES, "shared.env": {"S3_ACCESS_KEY": "key"}}, "ada")
    assert not layout.root.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rest_token": 1}'])
def test_damaged_secrets_are_not_replaced(settings: Settings, layout: Layout, text: str) -> None:
    layout.secrets.write_text(text)
    with pytest.raises(UsageError, match="is damaged; restore it from a backup"):
        settings.complete()
    assert layout.secrets.read_text() == text


@pytest.mark.parametrize("text", ["{", "{}", '[{"user": "ada"}]', "[1]"])
def test_a_damaged_list_of_keys_is_not_replaced(settings: Settings, layout: Layout, text: str) -> None:
    layout.api_keys.write_text(text)
    with pytest.raises(UsageError, match="must hold a JSON list of keys"):
        settings.complete()
    assert layout.api_keys.read_text() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("API_PORT=x", "API_PORT must be a port, not 'x'"),
        ("API_PORT=70000", "API_PORT must be a port"),
        ("PORT=80", "PORT is none of VALKEY_PORT"),
        ("API_PORT=6379", "two parts have the same port"),
    ],
)
def test_wrong_ports_are_named(settings: Settings, layout: Layout, text: str, message: str) -> None:
    (layout.settings / "ports.env").write_text(text)
    with pytest.raises(UsageError, match=message):
        settings.complete()


@pytest.mark.parametrize(
    "domain", ["agents", "https://agents.example.ch", "agents.example.ch:8443", "Agents.example.ch", "a b.ch", "-a.ch"]
)
def test_only_a_domain_is_taken_for_one(domain: str) -> None:
    with pytest.raises(UsageError, match="is no domain"):
        site_values(domain, {})


@pytest.mark.parametrize(
    ("line", "value"),
    [("A=b", "b"), ("A=", ""), ("A='b c'", "b c"), ('A="b c"', "b c"), ('A={"b": 1}', '{"b": 1}'), ("  A=b ", "b")],
)
def test_variables_are_read_as_systemd_reads_them(line: str, value: str) -> None:
    assert env_files.parse(f"# comment\n\n{line}\n") == {"A": value}


@pytest.mark.parametrize("line", ["A", "export A=b", "A='b", "A='b'c'", "A=b\\", "1A=b", "A-B=c"])
def test_what_systemd_would_read_in_another_way_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="line 1"):
        env_files.parse(line, "worker.env")
