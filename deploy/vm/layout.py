"""Folders and files of an installation."""

import re
from dataclasses import dataclass
from pathlib import Path

UNITS = Path(__file__).with_name("units")
PARTS = ("valkey", "gateway", "qstash", "worker", "api", "web")
"""Services in the order in which they are started."""
_RELEASE = re.compile(r"\d[\w.]*-(\d{8}T\d{9})")


@dataclass(frozen=True)
class Layout:
    """Paths of an installation below a root folder, which is another one only in tests."""

    @classmethod
    def own(cls) -> "Layout":
        """Return the layout of the installation that has this copy of the package, else the one of this machine."""
        releases = Path(__file__).resolve().parents[3]
        return cls(releases.parents[2]) if releases.match("opt/swissbrain/releases") else cls()

    root: Path = Path("/")

    @property
    def software(self) -> Path:
        """Folder of all releases."""
        return self.root / "opt" / "swissbrain"

    @property
    def releases(self) -> Path:
        """Folder with one folder for each release."""
        return self.software / "releases"

    @property
    def current(self) -> Path:
        """Link to the release that runs."""
        return self.software / "current"

    @property
    def previous(self) -> Path:
        """Link to the release that ran before."""
        return self.software / "previous"

    @property
    def lock(self) -> Path:
        """File that is locked while a command makes changes: where the unit of the backup may write too."""
        return self.backups / "lock"

    @property
    def settings(self) -> Path:
        """Folder of the settings; the operator's files and `generated/`."""
        return self.root / "etc" / "swissbrain"

    @property
    def generated(self) -> Path:
        """Folder of the settings that follow from the secrets and the ports."""
        return self.settings / "generated"

    @property
    def secrets(self) -> Path:
        """File of passwords, tokens and keys."""
        return self.settings / "secrets.json"

    @property
    def api_keys(self) -> Path:
        """File with the list of API keys."""
        return self.settings / "api-keys.json"

    @property
    def state(self) -> Path:
        """Folder of all data of the machine."""
        return self.root / "var" / "lib" / "swissbrain"

    @property
    def valkey(self) -> Path:
        """Data folder of Valkey."""
        return self.state / "valkey"

    @property
    def backups(self) -> Path:
        """Folder of backups that stay on this machine."""
        return self.state / "backups"

    @property
    def units(self) -> Path:
        """Folder of the units. Drop-ins of the operator are in /etc/systemd/system."""
        return self.root / "usr" / "local" / "lib" / "systemd" / "system"

    @property
    def sysusers(self) -> Path:
        """List of the users."""
        return self.root / "etc" / "sysusers.d" / "swissbrain.conf"

    @property
    def sysctl(self) -> Path:
        """Settings of the kernel."""
        return self.root / "etc" / "sysctl.d" / "60-swissbrain.conf"

    @property
    def command(self) -> Path:
        """The command of the installed release."""
        return self.root / "usr" / "local" / "sbin" / "swissbrain-vm"

    def installed(self) -> list[Path]:
        """Return the folders of the releases, the oldest first."""
        found = self.releases.iterdir() if self.releases.is_dir() else iter(())
        times = {each: match[1] for each in found if (match := _RELEASE.fullmatch(each.name))}
        return sorted(times, key=lambda each: times[each])

    def target(self, link: Path) -> Path | None:
        """Return the release that a link leads to, None if there is none."""
        return link.resolve() if link.exists() else None
