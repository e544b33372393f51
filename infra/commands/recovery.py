"""Command `swissbrain recovery`: lets QStash recover runs while there are no workers."""

import asyncio
import os
from typing import Annotated

import typer

from infra.commands.running import say
from infra.contract.errors import QStashUnavailable
from infra.contract.schedules import RECOVERY_PATH
from infra.qstash import QStash
from infra.settings import Env, QStashSettings, SettingsError
from swissbrain.cli.errors import CommandError

SCHEDULE_ID = "swissbrain-recovery"
EVERY_MINUTES = 5


def recovery(
    every: Annotated[int, typer.Option(help="Minutes from one tick to the next.", min=1, max=59)] = EVERY_MINUTES,
    remove: Annotated[bool, typer.Option("--remove", help="Let QStash call no longer.")] = False,
) -> None:
    """Let QStash call the API regularly, so that runs are recovered while there are no workers."""
    try:
        settings = QStashSettings.from_env(Env(os.environ))
    except SettingsError as exc:
        raise CommandError(str(exc)) from None
    if settings is None:
        raise CommandError("QSTASH_TOKEN is not set")
    try:
        asyncio.run(_apply(settings, None if remove else f"*/{every} * * * *"))
    except QStashUnavailable as exc:
        raise CommandError(str(exc)) from None
    say("removed" if remove else f"QStash calls {settings.public_url}{RECOVERY_PATH} every {every} minutes")


async def _apply(settings: QStashSettings, cron: str | None) -> None:
    qstash = QStash(settings)
    try:
        if cron is None:
            await qstash.delete_schedule(SCHEDULE_ID)
        else:
            await qstash.put_schedule(SCHEDULE_ID, RECOVERY_PATH, cron, "{}")
    finally:
        await qstash.close()
