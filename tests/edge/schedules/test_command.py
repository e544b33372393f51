"""The command that lets QStash call the recovery tick, and what QStash then calls."""

import asyncio
import os
import subprocess
import sys

import httpx

from tests.edge.schedules.conftest import Site
from tests.edge.stack import SimulatedWorker, create
from tests.support.qstash import CURRENT_KEY, NEXT_KEY, QSTASH_TOKEN
from tests.support.waiting import until


async def command(*words: str, **variables: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QSTASH_")}
    program = [sys.executable, "-m", "swissbrain", "recovery", *words]
    ended = await asyncio.to_thread(
        subprocess.run,
        program,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


async def test_qstash_recovers_runs_once_the_command_has_told_it(
    site: Site, ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    variables = {
        "QSTASH_URL": site.stand_in_url,
        "QSTASH_TOKEN": QSTASH_TOKEN,
        "QSTASH_CURRENT_SIGNING_KEY": CURRENT_KEY,
        "QSTASH_NEXT_SIGNING_KEY": NEXT_KEY,
        "EDGE_PUBLIC_URL": site.edge.url,
    }
    assert await command() == (2, "swissbrain: QSTASH_TOKEN is not set\n")
    unreachable = await command(**{**variables, "QSTASH_URL": "http://127.0.0.1:1"})
    assert unreachable == (2, "swissbrain: no answer from QStash: ConnectError\n")

    code, said = await command("--every", "7", **variables)

    assert (code, said) == (0, f"QStash calls {site.edge.url}/internal/recover every 7 minutes\n")
    assert await site.known() == {"swissbrain-recovery": "*/7 * * * *"}
    lost = await create(ada)
    await worker.store.claim("lost", 1, lease_ms=1)
    await site.fire("swissbrain-recovery")

    async def queued() -> bool:
        return bool((await ada.get(f"/agent/runs/{lost}")).json()["status"] == "queued")

    await until(queued, "the run of the lost worker is queued again")
    assert (await command("--remove", **variables))[0] == 0
    assert await site.known() == {}
