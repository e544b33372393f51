"""`k8s/monitoring`: the component and the chart have the same objects, and the dashboard shows metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from infra.metrics import REGISTRY, page
from scripts import check_manifests, kubernetes_tools
from scripts.check_manifests import Object, problems
from scripts.custom_resources import is_known
from tests.docs.pages import ROOT
from tests.k8s import rendering
from tests.k8s.alert_cases import CASES
from tests.k8s.flows import Pod, allows
from tests.k8s.rendering import by_title, chart, only, overlay
from tests.k8s.test_alerts import needs_promtool, promtool, rule_groups

NAME = "in-cluster"
ENABLED = ("--set", "monitoring.enabled=true")
METRIC = re.compile(r"\b(?:swissbrain|process)_\w+|\bswissbrain:\w+")
FOREIGN = re.compile(r"\b(?:keda|kube)_\w+")
FOREIGN_METRICS = {"keda_scaler_metrics_value", "kube_deployment_spec_replicas"}
"""Metrics of KEDA and of kube-state-metrics in the alerts."""


def component(folder: Path) -> tuple[Object, ...]:
    """Return the objects of an overlay with the component, which is switched on as its comment says."""
    # kubectl reads only below the folder that it renders.
    shutil.copytree(ROOT / "k8s", folder / "k8s", ignore=shutil.ignore_patterns("helm", "images"))
    kustomization = folder / "k8s" / "overlays" / NAME / "kustomization.yaml"
    text = kustomization.read_text()
    assert "  # - ../../monitoring\n" in text
    kustomization.write_text(text.replace("  # - ../../monitoring\n", "  - ../../monitoring\n"))
    return tuple(check_manifests.load(rendering.run(kubernetes_tools.KUBECTL, "kustomize", kustomization.parent)))


def added(objects: tuple[Object, ...], without: tuple[Object, ...]) -> dict[str, Object]:
    return {title: each for title, each in by_title(objects).items() if title not in by_title(without)}


@rendering.needs_tools
def test_the_chart_adds_the_objects_of_the_component(tmp_path: Path) -> None:
    expected = added(component(tmp_path), overlay(NAME))
    assert set(expected) == {
        "ConfigMap/agents/agent-dashboard",
        "NetworkPolicy/agents/agent-worker",
        "PodMonitor/agents/agent-worker",
        "PrometheusRule/agents/agent-worker",
    }
    assert added(chart(NAME, *ENABLED), chart(NAME)) == expected
    assert problems(list(expected.values())) == []
    assert [each["kind"] for each in expected.values() if is_known(each)] == ["PodMonitor", "PrometheusRule"]


@rendering.needs_tools
def test_the_budget_and_the_namespace_of_prometheus_are_values() -> None:
    made = chart(NAME, *ENABLED, "--set", "monitoring.dailyBudget=25", "--set", "monitoring.namespace=observability")
    budget = only(made, "PrometheusRule", "agent-worker")["spec"]["groups"][0]["rules"][0]
    assert (budget["record"], budget["expr"]) == ("swissbrain:daily_budget", "vector(25)")
    policies = [each for each in made if each["kind"] == "NetworkPolicy"]
    worker = Pod("agents", "agent-worker")
    assert allows(policies, Pod("observability", "prometheus"), worker, 8081)
    assert not allows(policies, Pod("monitoring", "prometheus"), worker, 8081)


@rendering.needs_tools
def test_prometheus_alone_reaches_the_port_of_the_workers_and_no_other() -> None:
    policies = [each for each in chart(NAME, *ENABLED) if each["kind"] == "NetworkPolicy"]
    worker, prometheus = Pod("agents", "agent-worker"), Pod("monitoring", "prometheus")
    assert allows(policies, prometheus, worker, 8081)
    strangers = [Pod("monitoring", "grafana"), Pod("default", "prometheus"), Pod("agent-tools", "tool")]
    assert not any(allows(policies, each, worker, 8081) for each in strangers)
    assert not any(allows(policies, prometheus, Pod("agents", name), 8787) for name in ("agent-api", "agent-worker"))
    # The policy must not take from the workers what they may reach.
    assert allows(policies, worker, Pod("agents", "valkey"), 6379)


@rendering.needs_tools
def test_the_scraped_port_is_that_of_the_worker() -> None:
    (monitor,) = (each for each in chart(NAME, *ENABLED) if each["kind"] == "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = rendering.containers(overlay(NAME))["agent-worker/worker"]["ports"]
    assert (endpoint["port"], port["containerPort"]) == (port["name"], 8081)


def series() -> set[str]:
    """Return the names of all series of the worker, and of the recorded ones."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    names = {f"{family.name}{end}" for family in REGISTRY.collect() for end in suffixes[family.type]}
    return names | {rule["record"] for group in rule_groups() for rule in group["rules"] if "record" in rule}


def dashboard() -> Object:
    return dict(json.loads((ROOT / "k8s" / "monitoring" / "dashboard.json").read_text()))


def test_the_dashboard_names_only_metrics_that_exist() -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    named = {name for query in queries for name in METRIC.findall(query)}
    assert named <= series()
    assert len(named) > 20
    assert not FOREIGN.findall(" ".join(queries))


@needs_promtool
def test_prometheus_can_read_the_page_of_a_worker_and_each_query_of_the_dashboard(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "metrics"], input=page(), check=True)
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


def test_the_dashboard_shows_every_metric_of_the_worker() -> None:
    queries = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    ours = {family.name for family in REGISTRY.collect() if family.name.startswith("swissbrain")}
    assert {name for name in ours if name not in queries} == set()


def test_the_panels_have_places_and_ids_of_their_own() -> None:
    panels = dashboard()["panels"]
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_alerts_name_only_metrics_that_exist() -> None:
    expressions = " ".join(rule["expr"] for group in rule_groups() for rule in group["rules"])
    assert set(METRIC.findall(expressions)) <= series()
    assert set(FOREIGN.findall(expressions)) == FOREIGN_METRICS
    used = {name.partition("{")[0] for case in CASES for each in (case.fires, *case.quiet) for name in each}
    assert used <= series() | FOREIGN_METRICS
