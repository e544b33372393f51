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
from tests.lambdas.conftest import ROOT
from tests.support.recorded_env import RecordedEnv

FOLDER = ROOT / "deploy" / "edge"
OSLS = FOLDER / "node_modules" / ".bin" / "osls"
CFN_LINT = ROOT / "build" / "cfn-lint" / "bin" / "cfn-lint"
KEY = '[{"user": "ada", "scopes": ["runs:read"], "sha256": "' + "0" * 64 + '"}]'
READ_BY_OTHERS = {"AWS_LAMBDA_EXEC_WRAPPER", "SSL_CERT_DIR"}
"""Variables of Lambda and of httpx."""
PARAMETER = re.compile(r"\$\{param:(\w+)\}")
SECRET = re.compile(r"\{\{resolve:secretsmanager:[^:}]+:SecretString:(\w+)\}\}")
FUNCTIONS = ("api", "stream")
TYPES = (
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


def filled_in(function: str) -> dict[str, str]:
    """Return the environment of a function with values for its parameters and secrets."""
    file = described()
    values = {**file["params"]["default"], "redisUrl": "https://redis.example", "secret": "swissbrain/test"}
    secrets = {"SWISSBRAIN_API_KEYS": KEY, "EDGE_STREAM_TOKEN_KEY": "k" * 40}
    variables = {**file["provider"]["environment"], **file["functions"][function]["environment"]}
    with_values = {name: PARAMETER.sub(lambda found: str(values[found[1]]), str(v)) for name, v in variables.items()}
    return {
        name: SECRET.sub(lambda found: secrets.get(found[1], "secret"), v).strip() for name, v in with_values.items()
    }


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_variable_of_a_function_is_read_and_gives_valid_settings(function: str) -> None:
    variables = filled_in(function)
    recorder = RecordedEnv(variables)
    settings = EdgeSettings.from_env(recorder)
    assert set(variables) - recorder.names - READ_BY_OTHERS == set()
    assert settings.api.log_mode == {"api": "longpoll", "stream": "stream"}[function]


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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    rendered = osls(folder, "--param", "redisUrl=https://redis.example", "--stage", "test")
    assert rendered.returncode == 0, rendered.stdout + rendered.stderr
    return folder / "cloudformation-template-update-stack.json"


@needs_osls
def test_the_template_is_valid_in_zurich(template: Path) -> None:
    # W3005: osls names dependencies that follow from a reference as well.
    command = [str(CFN_LINT), "--ignore-checks", "W3005", "--regions", "eu-central-2", "--template", str(template)]
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
        assert {n for n, v in variables.items() if SECRET.fullmatch(v)} == {
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
def test_a_missing_value_is_named(tmp_path: Path) -> None:
    rendered = osls(tmp_path)
    assert rendered.returncode == 1
    assert "UPSTASH_REDIS_REST_URL" in rendered.stdout + rendered.stderr
