"""Metrics of exchanges with models, against the usage that the run records."""

from infra.contract.states import Status
from infra.metrics import REGISTRY
from tests.agent_runs.script import finish, plan
from tests.agent_runs.site import AgentSite
from tests.support.model_server.answers import failure


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"swissbrain_{name}", labels) or 0.0


def counted() -> dict[str, float]:
    """Return what the metrics have counted of models so far in this process."""
    kinds = ("input", "output", "cached", "reasoning")
    return {
        "replied": value("model_exchanges_total", outcome="replied"),
        "unavailable": value("model_exchanges_total", outcome="unavailable"),
        "durations": value("model_exchange_duration_seconds_count"),
        "costs": sum(value("model_cost_total", currency=currency) for currency in ("CHF", "USD")),
        "unpriced": value("model_unpriced_exchanges_total"),
        "calls": value("tool_call_duration_seconds_count", tool="file_write", status="succeeded"),
        **{kind: value("model_tokens_total", kind=kind) for kind in kinds},
    }


async def test_exchanges_tokens_and_money_agree_with_the_record_of_the_run(site: AgentSite) -> None:
    before = counted()
    site.script(plan("Write"), [("file_write", {"path": "a.txt", "content": "one"})], finish())
    site.worker()
    run = await site.ended(await site.submit())
    assert run.status is Status.SUCCEEDED
    usage = run.usage
    assert usage is not None
    more = {name: number - before[name] for name, number in counted().items()}
    assert (more["replied"], more["durations"], more["calls"]) == (usage.exchanges, usage.exchanges, 1)
    assert [more[kind] for kind in ("input", "output", "cached", "reasoning")] == [
        usage.input,
        usage.output,
        usage.cached,
        usage.reasoning,
    ]
    assert more["unpriced"] == usage.unpriced
    assert round(more["costs"] * 1_000_000) == sum(usage.costs.values())


async def test_an_exchange_without_a_reply_counts_with_its_reason(site: AgentSite) -> None:
    before = counted()
    site.script(*[failure(500)] * 40)
    site.worker()
    await site.ended(await site.submit(max_attempts=1))
    after = counted()
    assert (after["unavailable"] - before["unavailable"], after["replied"] - before["replied"]) == (1, 0)
