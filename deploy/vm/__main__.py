"""Command `python3 -m deploy.vm`, in an installation `swissbrain-vm`: SwissBrain on one machine under systemd."""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.vm import preflight
from deploy.vm.commands import KEPT, Vm
from deploy.vm.layout import Layout
from deploy.vm.machine import Machine, UsageError, VmError
from deploy.vm.settings_files import site_values

USER = "admin"
MAX_KEPT = 1000


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 2 for wrong options or settings, 1 for other failures."""
    options = _parser().parse_args(words)
    # The users of the services read the software; the files with secrets have modes of their own.
    os.umask(0o022)
    try:
        layout = Layout.own()
        if not options.dry_run:
            preflight.check_root(layout.root)
        _run(options, Vm(Machine(dry_run=options.dry_run), layout))
    except UsageError as error:
        return _fail(error, 2)
    except VmError as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"cannot use {error.filename}: {error.strerror}" if error.filename else error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command can be run again", 130)
    return 0


def _run(options: argparse.Namespace, vm: Vm) -> None:
    if options.command in {"install", "upgrade"} and not options.dry_run:
        preflight.check_machine()
    if options.command == "install":
        vm.install(site_values(options.domain, _with_keys(vm, options)), options.user, options.wheels)
    elif options.command == "upgrade":
        vm.upgrade(options.wheels)
    elif options.command == "rollback":
        vm.rollback()
    elif options.command == "backup":
        vm.backup(options.to, options.keep)
    elif options.command == "restore":
        vm.restore(options.source, options.name, keep_settings=options.keep_settings)
    else:
        vm.uninstall(purge=options.purge)


def _with_keys(vm: Vm, options: argparse.Namespace) -> dict[str, str]:
    """Return the variables of the environment, with options and what a person types: no option has a secret."""
    found = dict(os.environ)
    for name in ("S3_ENDPOINT_URL", "S3_REGION", "S3_BUCKET"):
        if value := getattr(options, name.lower()):
            found[name] = value
    stored = vm.settings.variables("shared.env")
    for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY"):
        if not found.get(name) and not stored.get(name) and sys.stdin.isatty():
            # A dry run prints no values, so it needs none.
            found[name] = "asked-for" if options.dry_run else getpass.getpass(f"{name}: ")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploy.vm", description="SwissBrain on one machine under systemd.")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--dry-run", action="store_true", help="print the steps, and make none")
    new = argparse.ArgumentParser(add_help=False)
    new.add_argument("--wheels", type=_folder, help="folder with all wheels; default: pip's index")

    install = commands.add_parser("install", parents=[shared, new], help="install this checkout, or complete that")
    install.add_argument("--domain", help="domain that leads to this machine; required at first")
    install.add_argument("--s3-endpoint-url", help="the object store; default: Exoscale in Geneva")
    install.add_argument("--s3-region")
    install.add_argument("--s3-bucket")
    install.add_argument("--user", default=USER, help=f"user of the first API key; default: {USER}")
    commands.add_parser("upgrade", parents=[shared, new], help="switch to this checkout, and back if it does not work")
    commands.add_parser("rollback", parents=[shared], help="switch to the release that ran before")
    backup = commands.add_parser("backup", parents=[shared], help="save Valkey and the settings")
    backup.add_argument("--to", type=_folder, help="folder; default: the bucket")
    backup.add_argument("--keep", type=_count, default=KEPT, help=f"number of backups to keep; default: {KEPT}")
    restore = commands.add_parser("restore", parents=[shared], help="bring back a backup; stops everything meanwhile")
    restore.add_argument("--from", dest="source", type=_folder, help="folder; default: the bucket")
    restore.add_argument("--name", help="name of the backup; default: the newest")
    restore.add_argument("--keep-settings", action="store_true", help="bring back Valkey alone")
    uninstall = commands.add_parser("uninstall", parents=[shared], help="remove everything except settings and data")
    uninstall.add_argument("--purge", action="store_true", help="remove settings and data too")
    return parser


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return path.absolute()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_KEPT:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_KEPT}, not {text!r}")
    return int(text)


def _fail(error: object, code: int) -> int:
    sys.stderr.write(f"swissbrain-vm: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
