"""Redis commands of requests to the API, from which `swissbrain cost` computes the bill."""

import httpx
import yaml

from infra.commands import cost_counts
from infra.contract.redis import Redis
from tests.docs.pages import ROOT
from tests.edge.stack import SimulatedWorker, create, stream
from tests.support.command_counts import billed_commands, settled_commands


async def total(redis: Redis) -> int:
    return (await billed_commands(redis)).total()


async def test_a_read_and_an_opened_stream_cost_what_the_bill_says(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    before = (await settled_commands(worker.redis)).total()
    async with stream(ada, run_id) as events:
        await anext(events)
        opened = (await settled_commands(worker.redis)).total() - before
        await worker.finish(lease)
        assert [event.event async for event in events][-1] == "end"
    assert opened == cost_counts.STREAM

    before = (await settled_commands(worker.redis)).total()
    assert (await ada.get(f"/agent/runs/{run_id}")).status_code == 200
    assert await total(worker.redis) - before == cost_counts.READ


def test_a_function_holds_a_stream_as_long_as_the_bill_says() -> None:
    functions = yaml.safe_load((ROOT / "serverless.yml").read_text())["functions"]
    assert functions["stream"]["environment"]["EDGE_STREAM_HOLD_S"] == cost_counts.STREAM_S
