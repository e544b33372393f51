"""One whole run with a real model, which is too small to finish a task: the run must end in a documented way."""

import re
from pathlib import Path

from infra.contract.agent import Limits
from infra.contract.llm import ModelChoice
from infra.contract.states import TERMINAL, Status
from tests.agent_runs.site import AgentSite
from tests.model.conftest import RealModel
from tests.support.waiting import until
from worker.agent.settings import AgentSettings

API = Path(__file__).parent.parent.parent / "docs/api.md"


def _documented_codes() -> set[str]:
    section = API.read_text().partition("### Error codes of a run")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


async def test_a_run_ends_as_documented_with_its_usage_and_a_whole_log(site: AgentSite, real: RealModel) -> None:
    strategy = site.agent(
        models=[ModelChoice(name="smollm2")],
        settings=AgentSettings(context_tokens=8000, output_tokens=256),
        base_url=f"{real.url}/v1",
        tool_mode="json_schema",
    )
    site.worker(strategy=strategy)
    limits = Limits(turns=3, wall_s=300.0)
    run_id = await site.submit("Write the text hello into the file a.txt.", tools=["file_write"], limits=limits)

    async def rests() -> bool:
        return (await site.store.get(run_id)).status in {*TERMINAL, Status.WAITING}

    await until(rests, "the run ends, or asks a question", timeout_s=500)
    if (await site.store.get(run_id)).status is Status.WAITING:
        await site.store.cancel(run_id)
    run, log = await site.ended(run_id), await site.log(run_id)
    assert (log[0].type, log[-1].type, log[-1].data["status"]) == ("run.started", "run.finished", run.status)
    assert run.error is None or run.error.code in _documented_codes()
    assert any(event.type == "model.message" for event in log)
    assert run.usage is not None
    assert 1 <= run.usage.exchanges <= 3
    assert run.usage.input > 0
    assert run.usage.output > 0
