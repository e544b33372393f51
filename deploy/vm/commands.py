"""Installing, upgrading, rolling back, saving and restoring everything on one machine."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from deploy.vm import archive
from deploy.vm.backups import Bucket, Folder, Place
from deploy.vm.layout import Layout
from deploy.vm.machine import Machine, UsageError, VmError
from deploy.vm.releases import Build, Releases
from deploy.vm.services import Services
from deploy.vm.settings_files import Settings
from infra.valkey_backup import data_dir

KEPT = 14
BEFORE_UPGRADES = 3
STARTING_S = 10.0
"""Time for which a backup waits for a Valkey that cannot be reached."""
WORKED = "worked"
"""File in each release that has passed its checks, with the last time: only to such a release is there a way back."""


class Vm:
    """Installation on one machine. Methods raise VmError, in particular UsageError, and OSError.

    `build`: how to make the virtual environment of a release, other than with pip.
    """

    def __init__(
        self,
        machine: Machine,
        layout: Layout,
        *,
        build: Build | None = None,
    ) -> None:
        self._machine = machine
        self._layout = layout
        self._build = build
        self.settings = Settings(layout, machine)
        self._releases = Releases(layout, machine)
        self._services = Services(layout, machine)

    def install(self, values: Mapping[str, Mapping[str, str]], user: str, wheels: Path | None = None) -> None:
        """Install this checkout, or complete an installation. `values`: see `Settings.create`."""
        self._releases.check_source()
        with self.locked():
            token = self.settings.create(values, user)
            if token and not self._machine.dry_run:
                # Already here: if the connection to the machine is lost meanwhile, no output comes at the end.
                self._machine.say(f"The API key of the user {user} is stored nowhere; it is shown again at the end:")
                self._machine.say(f"  {token}")
            try:
                self.settings.complete()
                self._activate(self._releases.build(wheels, self._build))
            finally:
                if token and not self._machine.dry_run:
                    self._machine.say(f"API key of the user {user}, which is shown only now:\n  {token}")

    def upgrade(self, wheels: Path | None = None) -> None:
        """Install this checkout beside the release that runs, switch to it, and switch back if it does not work."""
        self._releases.check_source()
        self._require_installation()
        with self.locked():
            release = self._releases.build(wheels, self._build)
            kept = self._save(Folder(self._layout.backups), self._layout.backups, BEFORE_UPGRADES)
            self._machine.say(f"Backup {kept} in {self._layout.backups}")
            self.settings.complete()
            self._activate(release)

    def rollback(self) -> None:
        """Switch to the release that ran before. The data stays."""
        current, worked = self._layout.target(self._layout.current), self._worked_last()
        former = self._layout.target(self._layout.previous) if worked == current else worked
        if former is None or former == current:
            raise UsageError("there is no previous release")
        with self.locked():
            self._activate(former)

    def backup(self, to: Path | None, keep: int = KEPT) -> None:
        """Save Valkey and the settings in a folder, or in the bucket of the installation, and delete old backups."""
        self._require_installation()
        place = Folder(to) if to else Bucket(self.settings.variables("shared.env"))
        where = str(to) if to else f"{self._bucket()}/backups/vm"
        with self.locked():
            self._machine.say(f"Backup {self._save(place, to or self._layout.backups, keep)} in {where}")

    def restore(self, source: Path | None, name: str | None, *, keep_settings: bool = False) -> None:
        """Bring back Valkey and the settings from a folder or from the bucket. What was there is set aside.

        `keep_settings` brings back Valkey alone. Everything is stopped meanwhile.
        """
        self._require_installation()
        place = Folder(source) if source else Bucket(self.settings.variables("shared.env"))
        with self.locked():
            self._machine.say("+ fetch the backup and check it")
            if self._machine.dry_run:
                self._restore(Path("BACKUP"), keep_settings=keep_settings)
                return
            with tempfile.TemporaryDirectory(dir=self._layout.state) as temporary:
                found = place.fetch(name, Path(temporary) / "backup.tar")
                bucket = archive.unpack(Path(temporary) / "backup.tar", Path(temporary) / "content")
                self._restore(Path(temporary) / "content", keep_settings=keep_settings)
            self._machine.say(
                f"Restored {found}. It has no files and logs: those of its runs are in the bucket {bucket}"
            )

    def uninstall(self, *, purge: bool) -> None:
        """Stop and remove everything; `purge`: settings and data too. The bucket stays."""
        with self.locked():
            self._services.remove()
            for path in [self._layout.software, *([self._layout.settings, self._layout.state] if purge else [])]:
                self._machine.remove(path)
        if not purge:
            self._machine.say(f"Settings in {self._layout.settings} and data in {self._layout.state} are kept")

    def _activate(self, release: Path) -> None:
        former = self._worked_last()
        try:
            self._switch(release)
        except (VmError, OSError) as error:
            if former is None or former == release.resolve():
                raise
            self._machine.say(f"Release {release.name} does not work: {error}")
            self._machine.say(f"Back to release {former.name}")
            self._switch(former)
            raise VmError(f"{release.name} does not work, {former.name} runs again: {error}") from error
        self._machine.write(release / WORKED, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}\n")
        if former and former != release.resolve():
            self._machine.link(self._layout.previous, former)
        self._releases.prune()
        self._machine.say(f"Release {release.name} runs")

    def _worked_last(self) -> Path | None:
        """Return the release that has passed its checks last, None if there is none.

        The link `current` may lead to another one: a command that was killed has left it there before its checks.
        """
        worked = [each for each in self._layout.installed() if (each / WORKED).exists()]
        last = max(worked, key=lambda each: (each / WORKED).read_text(), default=None)
        return last and last.resolve()

    def _switch(self, release: Path) -> None:
        self._services.install(release)
        self._services.restart()
        self._services.check(self.settings)

    def _save(self, place: Place, folder: Path, keep: int) -> str:
        """Make a backup in a folder, and store it in a place; return its name."""
        self._machine.say("+ save a snapshot of Valkey and the settings")
        if self._machine.dry_run:
            return "TIME"
        work = folder / "unfinished.tar"
        try:
            self._create(work)
            name = place.store(work)
        finally:
            work.unlink(missing_ok=True)
        place.prune(keep)
        return name

    def _create(self, work: Path) -> None:
        """Write a backup into a file; wait for a Valkey that is starting, as after an upgrade that was interrupted."""
        over_at = time.monotonic() + STARTING_S
        while True:
            try:
                return archive.create(work, self.settings.backup_url(), self._layout.settings, self._bucket())
            except VmError:
                if time.monotonic() > over_at:
                    raise
                time.sleep(0.2)

    def _restore(self, content: Path, *, keep_settings: bool) -> None:
        """Put the unpacked backup in place. It can be interrupted anywhere, and repeated."""
        machine, layout = self._machine, self._layout
        self._services.stop()
        machine.say(f"+ put the snapshot into {layout.valkey}")
        if not machine.dry_run:
            snapshot = layout.valkey / "restored.rdb.part"
            shutil.move(content / archive.SNAPSHOT, snapshot)
            if former := data_dir.put(snapshot, layout.valkey):
                machine.say(f"What was there before is in {former}")
            machine.own(layout.valkey, layout.valkey)
        if not keep_settings:
            aside = layout.settings / f"before-restore-{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
            machine.folder(aside, 0o700)
            machine.say(f"+ put the settings into {layout.settings}")
            for path in [] if machine.dry_run else sorted((content / archive.SETTINGS).iterdir()):
                if (layout.settings / path.name).exists():
                    shutil.copy2(layout.settings / path.name, aside / path.name)
                machine.write(layout.settings / path.name, path.read_text(), 0o600)
        self.settings.complete()
        self._services.restart()
        self._services.check(self.settings)

    def _bucket(self) -> str:
        return self.settings.variables("shared.env").get("S3_BUCKET", "swissbrain-workspaces")

    def _require_installation(self) -> None:
        if self._layout.target(self._layout.current) is None:
            raise UsageError("nothing is installed here")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one command at a time make changes."""
        if self._machine.dry_run:
            yield
            return
        self._machine.folder(self._layout.backups, 0o700)
        descriptor = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UsageError("another command is making changes") from None
        finally:
            os.close(descriptor)
