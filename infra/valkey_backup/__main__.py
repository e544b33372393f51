"""Saves, lists and restores backups: `python -m infra.valkey_backup save | list | restore FOLDER`."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from infra.contract.errors import ContractError
from infra.settings import Env, RedisTcpSettings, S3Settings, SettingsError
from infra.valkey_backup import data_dir
from infra.valkey_backup.backups import Backups

PROGRAM = "valkey_backup"
MAX_KEPT = 1000


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code: 2 for wrong settings, 1 for other errors."""
    options = _parser().parse_args(arguments)
    env = Env(os.environ)
    try:
        backups = Backups(S3Settings.from_env(env))
        if options.command == "save":
            _save(backups, RedisTcpSettings.from_env(env).url, options.keep)
        elif options.command == "restore":
            _restore(backups, options.folder, options.name)
        else:
            _list(backups)
    except SettingsError as error:
        return _fail(error, 2)
    except (ContractError, OSError) as error:
        return _fail(error, 1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Backups of a Valkey in the object store.")
    commands = parser.add_subparsers(dest="command", required=True)
    save = commands.add_parser("save", help="store a snapshot of the server at REDIS_URL")
    save.add_argument("--keep", type=_count, default=14, help="number of backups to keep; default: 14")
    commands.add_parser("list", help="list the backups, the newest first")
    restore = commands.add_parser("restore", help="put a backup into the data folder of a stopped server")
    restore.add_argument("folder", type=Path, help="data folder of the server, with 'appendonly yes'")
    restore.add_argument("--name", help="name of the backup; default: the newest")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MAX_KEPT:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_KEPT}, not {text!r}")
    return int(text)


def _save(backups: Backups, url: str, keep: int) -> None:
    if url.startswith("unix://"):
        raise SettingsError("REDIS_URL must begin with redis:// or rediss:// for a backup")
    with tempfile.TemporaryDirectory() as folder:
        saved = backups.save(url, Path(folder))
    print(f"saved {saved.name}, {saved.size} bytes; deleted {backups.prune(keep)} old backups")  # noqa: T201


def _restore(backups: Backups, folder: Path, name: str | None) -> None:
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder")
    # Within the folder, because the file is renamed to its place. A restore that was killed has left it.
    temporary = folder / "restored.rdb.part"
    try:
        restored = backups.fetch(name, temporary)
        former = data_dir.put(temporary, folder)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"restored {restored}" + (f"; what was there before is in {former}" if former else ""))  # noqa: T201


def _list(backups: Backups) -> None:
    for backup in backups.stored():
        print(f"{backup.name}  {backup.size:>14,} bytes")  # noqa: T201


def _fail(error: Exception, code: int) -> int:
    print(f"{PROGRAM}: {error}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
