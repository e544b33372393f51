"""Autoscaler of the workers, as KEDA and the horizontal pod autoscaler decide with `k8s/components/keda`.

Asks a real Valkey with the script of KEDA's scaler for Redis, and scales from the fields of the ScaledObject. Clocks
are left out: each call of `replicas` is one poll after the stabilization window.
"""

import ast
import math
from typing import Any

import yaml

from infra.contract.redis import Redis
from tests.docs.pages import ROOT

MANIFEST = ROOT / "k8s" / "components" / "keda" / "autoscaling.yaml"
COUNT = """
local kind = redis.call('type', KEYS[1]).ok
local commands = {zset = 'zcard', set = 'scard', list = 'llen', hash = 'hlen', none = 'llen'}
return redis.call(commands[kind], KEYS[1])
"""
"""What KEDA sends for each trigger: EVAL of a script with TYPE and LLEN or ZCARD."""


class Autoscaler:
    """Decisions for the Deployment of the workers."""

    def __init__(self, redis: Redis) -> None:
        (scaled,) = (each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "ScaledObject")
        self._spec: dict[str, Any] = scaled["spec"]
        self._redis = redis

    async def replicas(self) -> int:
        """Return the number of workers that there should be now."""
        values = {each["name"]: await self._count(each) for each in self._spec["triggers"]}
        modifiers = self._spec["advanced"]["scalingModifiers"]
        metric = _evaluated(modifiers["formula"], values)
        assert modifiers["metricType"] == "AverageValue"
        wanted = math.ceil(metric / float(modifiers["target"]))
        return int(min(max(wanted, self._spec["minReplicaCount"]), self._spec["maxReplicaCount"]))

    async def _count(self, trigger: dict[str, Any]) -> float:
        assert (trigger["type"], trigger["useCachedMetrics"]) == ("redis", True)
        return float(await self._redis.command("EVAL", COUNT, 1, trigger["metadata"]["listName"]))  # type: ignore[arg-type]


def _evaluated(formula: str, values: dict[str, float]) -> float:
    """Return the value of a formula in the language of KEDA, of which ours uses sums and one condition."""
    sums, _, condition = formula.partition("(")
    test, _, rest = condition.rstrip(")").partition(" ? ")
    then, _, otherwise = rest.partition(" : ")
    tree = ast.parse(f"{sums}({then} if {test} else {otherwise})", mode="eval")
    result = eval(compile(tree, "formula", "eval"), {"__builtins__": {}}, dict(values))
    # KEDA fails on an integer.
    assert isinstance(result, float)
    return result
