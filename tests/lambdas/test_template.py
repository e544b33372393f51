"""`serverless.yml`: its variables against the code, and what osls makes of it.

The tests with osls are skipped unless `make check-edge` has installed it: with cfn-lint it takes 270 MB and a minute.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_api.settings import EdgeSettings
from infra.settings import Env
from scripts import package_edge
from tests.docs.pages import documented_defaults
from tests.lambdas.conftest import ROOT
from tests.support.recorded_env import RecordedEnv

FOLDER = ROOT / "deploy" / "edge"
OSLS = FOLDER / "node_modules" / ".bin" / "osls"
CFN_LINT = ROOT / "build" / "cfn-lint" / "bin" / "cfn-lint"
KEY = '[{"user": "ada", "scopes": ["runs:read"], "sha256": "' + "0" * 64 + '"}]'
READ_BY_OTHERS = {"AWS_LAMBDA_EXEC_WRAPPER", "SSL_CERT_DIR"}
"""Variables of Lambda and of httpx."""
PARAMETER = re.compile(r"\$\{param:(\w+)\}")
CHOICE = re.compile(r"\$\{self:custom\.qstash\.\$\{param:qstash\}\.(\w+)\}")
SECRET = re.compile(r"\{\{resolve:secretsmanager:[^:}]+:SecretString:(\w+)\}\}")
FUNCTIONS = ("api", "stream")
TYPES = (
    "AWS::ApiGateway::BasePathMapping",
    "AWS::ApiGateway::DomainName",
    "AWS::ApiGateway::Method",
    "AWS::ApiGateway::RestApi",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
)
"""Types of resources that the tests look at."""

needs_osls = pytest.mark.skipif(
    not (OSLS.exists() and CFN_LINT.exists() and (package_edge.FOLDER / "package.json").exists()),
    reason="run 'make check-edge', which installs osls and cfn-lint",
)


def described() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "serverless.yml").read_text()))


def filled_in(function: str, qstash: str = "on") -> dict[str, str]:
    """Return the environment of a function with values for its parameters and secrets."""
    file = described()
    values = {**file["params"]["default"], "redisUrl": "https://redis.example", "secret": "swissbrain/test"}
    choices = file["custom"]["qstash"][qstash]
    secrets = {"SWISSBRAIN_API_KEYS": KEY, "EDGE_STREAM_TOKEN_KEY": "k" * 40, "EDGE_WEBHOOK_KEY": "w" * 40}
    variables = {**file["provider"]["environment"], **file["functions"][function]["environment"]}
    assert variables["EDGE_PUBLIC_URL"]["Fn::If"][0] == "HasDomain"  # CloudFormation computes it
    variables["EDGE_PUBLIC_URL"] = "https://api.example.ch/v1"
    chosen = {name: CHOICE.sub(lambda found: choices[found[1]], str(v)) for name, v in variables.items()}
    with_values = {name: PARAMETER.sub(lambda found: str(values[found[1]]), v) for name, v in chosen.items()}
    return {
        name: SECRET.sub(lambda found: secrets.get(found[1], "secret"), v).strip() for name, v in with_values.items()
    }


@pytest.mark.parametrize("qstash", ["off", "on"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_variable_of_a_function_is_read_and_gives_valid_settings(function: str, qstash: str) -> None:
    variables = filled_in(function, qstash)
    recorder = RecordedEnv(variables)
    settings = EdgeSettings.from_env(recorder)
    # Without a token, the API looks at nothing else of QStash.
    of_qstash = {"EDGE_PUBLIC_URL", "QSTASH_URL", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"}
    assert set(variables) - recorder.names - READ_BY_OTHERS == (of_qstash if qstash == "off" else set())
    defaults = documented_defaults()
    unset = {name for name in recorder.names - set(variables) if name.removesuffix("_FILE") not in variables}
    assert {name for name in unset if defaults.get(name, "") in {"", "required"}} == set()
    assert settings.api.log_mode == {"api": "longpoll", "stream": "stream"}[function]
    assert (settings.qstash is not None, bool(settings.webhook_keys)) == (qstash == "on", qstash == "on")


def test_each_function_ends_before_those_who_wait_for_it() -> None:
    file = described()
    api, stream = (file["functions"][name] for name in FUNCTIONS)
    (event,) = stream["events"]
    hold_s = stream["environment"]["EDGE_STREAM_HOLD_S"]
    assert hold_s + 10 < stream["timeout"] < event["http"]["timeoutInMillis"] / 1000 <= 900
    assert EdgeSettings.from_env(Env(filled_in("api"))).api.longpoll_wait_s + 2 < api["timeout"] < 29


def test_osls_is_exact_and_locked_without_addresses_of_a_registry() -> None:
    text = (FOLDER / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all("integrity" in package for path, package in packages.items() if path)
    assert "resolved" not in text
    assert "registry" not in text


def osls(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Render the template into a folder, which is also HOME, so that osls changes nothing of the user."""
    command = [str(OSLS), "package", "--package", str(folder), *words]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_COLOR": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)


def rendered_with(folder: Path, *values: str) -> Path:
    """Return the template for the stage `test` with values for parameters."""
    parameters = [word for value in ("redisUrl=https://redis.example", *values) for word in ("--param", value)]
    rendered = osls(folder, *parameters, "--stage", "test")
    assert rendered.returncode == 0, rendered.stdout + rendered.stderr
    return folder / "cloudformation-template-update-stack.json"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered_with(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def whole_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render the template with everything that is off by default."""
    certificate = "certificateArn=arn:aws:acm:eu-central-2:123456789012:certificate/x"
    folder = tmp_path_factory.mktemp("whole_template")
    return rendered_with(folder, "qstash=on", "domain=api.example.ch", certificate, "basePath=/v1")


@needs_osls
def test_the_template_is_valid_in_zurich(template: Path, whole_template: Path) -> None:
    # W3005: osls names dependencies that follow from a reference as well.
    command = [str(CFN_LINT), "--ignore-checks", "W3005", "--regions", "eu-central-2", "--template"]
    command += [str(template), str(whole_template)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


@needs_osls
def test_the_template_has_what_the_file_promises(template: Path) -> None:
    resources: dict[str, Any] = json.loads(template.read_text())["Resources"]
    of_type = {kind: [r["Properties"] for r in resources.values() if r["Type"] == kind] for kind in TYPES}
    built = json.loads((package_edge.FOLDER / "package.json").read_text())
    for function in of_type["AWS::Lambda::Function"]:
        assert (function["Runtime"], function["Architectures"]) == (built["runtime"], [built["architecture"]])
        variables = function["Environment"]["Variables"]
        assert {n for n, v in variables.items() if isinstance(v, str) and SECRET.fullmatch(v)} == {
            "UPSTASH_REDIS_REST_TOKEN",
            "S3_ACCESS_KEY",
            "S3_SECRET_KEY",
            "SWISSBRAIN_API_KEYS",
            "EDGE_STREAM_TOKEN_KEY",
        }
    stream = resources["StreamLambdaFunction"]["Properties"]
    assert stream["ReservedConcurrentExecutions"] == 50
    assert [group["RetentionInDays"] for group in of_type["AWS::Logs::LogGroup"]] == [30, 30]
    for role in of_type["AWS::IAM::Role"]:
        (policy,) = role["Policies"]
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
        assert statement["Resource"]["Fn::GetAtt"][0] in {"ApiLogGroup", "StreamLogGroup"}
        assert "ManagedPolicyArns" not in role
    assert [api["EndpointConfiguration"] for api in of_type["AWS::ApiGateway::RestApi"]] == [{"Types": ["REGIONAL"]}]
    streamed = [
        method["ResourceId"]["Ref"]
        for method in of_type["AWS::ApiGateway::Method"]
        if method["Integration"].get("ResponseTransferMode") == "STREAM"
    ]
    assert streamed == ["ApiGatewayResourceAgentLogsRunidVarStream"]


@needs_osls
def test_a_domain_leads_to_the_stage_and_is_the_address_that_qstash_calls(whole_template: Path) -> None:
    document = json.loads(whole_template.read_text())
    resources: dict[str, Any] = document["Resources"]
    mapping, domain = resources["CustomDomainMapping"], resources["CustomDomain"]
    assert (domain["Condition"], mapping["Condition"]) == ("HasDomain", "HasDomain")
    assert {name: each["Default"] for name, each in document["Parameters"].items()} == {
        "Domain": "api.example.ch",
        "BasePath": "/v1",
        "Address": "api.example.ch/v1",
    }
    # osls deploys an empty stack first, with the same parameters of the stack; the domain must wait for the stage.
    assert "stackParameters" not in described()["provider"]
    (dependency,) = mapping["DependsOn"]
    assert resources[dependency]["Properties"]["StageName"] == mapping["Properties"]["Stage"] == "test"
    for function in ("ApiLambdaFunction", "StreamLambdaFunction"):
        variables = resources[function]["Properties"]["Environment"]["Variables"]
        condition, with_domain, without = variables["EDGE_PUBLIC_URL"]["Fn::If"]
        assert (condition, with_domain) == ("HasDomain", {"Fn::Join": ["", ["https://", {"Ref": "Address"}]]})
        assert without == document["Outputs"]["ServiceEndpoint"]["Value"]
        found = {name: SECRET.fullmatch(variables[name]) for name in variables if name.startswith("QSTASH_")}
        assert {name for name, secret in found.items() if secret and secret[1] == name} == set(found) - {"QSTASH_URL"}


@pytest.mark.parametrize(
    ("domain", "base_path", "is_allowed"),
    [
        ("", "", True),
        ("", "/a/b", True),
        ("api.example.ch", "", True),
        ("api.example.ch", "/v1", True),
        ("api.example.ch", "/a/b", False),
        ("api.example.ch", "v1/", False),
        ("https://api.example.ch", "", False),
    ],
)
def test_cloudformation_refuses_an_address_that_the_domain_cannot_have(
    domain: str, base_path: str, is_allowed: bool
) -> None:
    pattern = described()["resources"]["Parameters"]["Address"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, f"{domain}{base_path}")) == is_allowed


@needs_osls
def test_qstash_is_on_or_off(tmp_path: Path) -> None:
    rendered = osls(tmp_path, "--param", "redisUrl=https://redis.example", "--param", "qstash=maybe")
    assert rendered.returncode == 1
    assert "QSTASH_TOKEN" in rendered.stdout + rendered.stderr


@needs_osls
def test_a_missing_value_is_named(tmp_path: Path) -> None:
    rendered = osls(tmp_path)
    assert rendered.returncode == 1
    assert "UPSTASH_REDIS_REST_URL" in rendered.stdout + rendered.stderr
