"""Units of `deploy/vm`, read as systemd reads them, as far as they use its syntax."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from deploy.vm.layout import UNITS

PLACES = ("/opt/swissbrain", "/etc/swissbrain", "/var/lib/swissbrain")
_REFERENCE = re.compile(r"\$\{([A-Z_]+)\}")


@dataclass
class Unit:
    """Unit: the values of each key of each section, in order."""

    name: str
    sections: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def all(self, key: str, section: str = "Service") -> list[str]:
        """Return all values of a key."""
        return self.sections.get(section, {}).get(key, [])

    def words(self, key: str, section: str = "Service") -> list[str]:
        """Return the words of all values of a key."""
        return [word for value in self.all(key, section) for word in value.split()]

    def get(self, key: str, default: str = "", section: str = "Service") -> str:
        """Return the last value of a key."""
        return (self.all(key, section) or [default])[-1]

    @property
    def command(self) -> list[str]:
        """Words of its only command."""
        (line,) = self.all("ExecStart")
        return line.split()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that stand in the unit itself, with specifiers."""
        return dict(word.split("=", 1) for word in self.words("Environment"))

    @property
    def files(self) -> list[str]:
        """Files of its environment below the folder of the settings; `-` before those that need not exist."""
        return [value.replace("/etc/swissbrain/", "") for value in self.all("EnvironmentFile")]

    @property
    def credentials(self) -> dict[str, str]:
        """Paths of its credentials by name."""
        return dict(value.split(":", 1) for value in self.all("LoadCredential"))

    @property
    def references(self) -> set[str]:
        """Variables that systemd puts into the command."""
        return {name for word in self.command for name in _REFERENCE.findall(word)}


def parse(name: str, text: str) -> Unit:
    """Return a unit. Raises ValueError for a line that is neither a section, a comment nor a value."""
    unit, section = Unit(name), ""
    for line in text.splitlines():
        if not line.strip() or line[0] in "#;":
            continue
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
            continue
        key, equals, value = line.partition("=")
        if not equals or not section or line.endswith("\\") or "'" in value or '"' in value:
            raise ValueError(f"{name}: {line}")
        values = unit.sections.setdefault(section, {}).setdefault(key, [])
        if value:
            values.append(value)
        else:
            values[:] = [""]
    return unit


def shipped() -> dict[str, Unit]:
    """Return all units of this checkout by name."""
    return {path.name: parse(path.name, path.read_text()) for path in sorted(UNITS.iterdir())}


def moved(text: str, root: Path) -> str:
    """Return a text in which all folders of an installation are below another root."""
    for place in PLACES:
        text = text.replace(place, f"{root}{place}")
    return text
