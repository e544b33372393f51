"""Command `swissbrain sweep`: delete the objects of expired runs, and objects that no run needs.

Reads the settings of a worker for Redis and the object store. Prints one line of JSON with the numbers of the pass.
"""

import asyncio
import os
from dataclasses import asdict
from typing import Annotated

import msgspec
import typer

from infra import logging as log_lines
from infra.commands.running import say
from infra.contract.errors import ContractError
from infra.contract.redis_store.retention import RetentionStore
from infra.redis_tcp import RedisTcp
from infra.retention import Report, Sweeper
from infra.settings import Env, RedisTcpSettings, S3Settings, SettingsError, StoreSettings
from infra.workspace import Workspaces


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be deleted; delete nothing.")] = False,
) -> None:
    """Delete the stored objects of expired runs, and objects that no run needs. An interrupted sweep continues."""
    log_lines.configure()
    try:
        report = asyncio.run(_sweep(Env(os.environ), dry_run=dry_run))
    except SettingsError as exc:
        say(f"swissbrain: {exc}", err=True)
        raise typer.Exit(2) from None
    except ContractError as exc:
        say(f"swissbrain: {exc}", err=True)
        raise typer.Exit(1) from None
    say(msgspec.json.encode({"dry_run": dry_run, **asdict(report)}).decode())


async def _sweep(env: Env, *, dry_run: bool) -> Report:
    """Sweep once. Raises SettingsError, ContractError."""
    store_settings, s3 = StoreSettings.from_env(env), S3Settings.from_env(env)
    redis = RedisTcp(RedisTcpSettings.from_env(env))
    workspaces = Workspaces(s3)
    try:
        store = RetentionStore(redis, store_settings.keys)
        return await Sweeper(store, workspaces.inventory, dry_run=dry_run).sweep()
    finally:
        await redis.close()
        workspaces.close()
