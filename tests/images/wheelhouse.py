"""Wheels of what is installed for the tests, so that images are built without a registry."""

from collections.abc import Iterable
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def write_wheels(folder: Path, wheel: Path, *extras: str, also: tuple[str, ...] = ()) -> None:
    """Write wheels of the installed distributions that a wheel of this checkout needs, and of those in `also`."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    needed = [*_requirements(metadata.get_all("Requires-Dist", []), extras), *map(Requirement, also)]
    for name, dist in {canonicalize_name(each.name): each for each in _closure(needed)}.items():
        if not name.startswith("swissbrain"):
            write_wheel(folder, dist)


def write_wheel(folder: Path, dist: Distribution) -> Path:
    """Pack an installed distribution into a wheel again, without what pip adds; return the file."""
    (info,) = {str(file.parent) for file in dist.files or () if file.name == "METADATA" and file.parent.suffix}
    stem = info.removesuffix(".dist-info")
    tags = HeaderParser().parsestr(dist.read_text("WHEEL") or "").get_all("Tag", [])
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*(each.split("-") for each in tags), strict=True))
    target = folder / f"{stem}-{tag}.whl"
    entries, scripts = [], {entry.name for entry in dist.entry_points if entry.group == "console_scripts"}
    with ZipFile(target, "w", ZIP_STORED) as wheel:
        for file in dist.files or ():
            path = Path(str(dist.locate_file(file)))
            if file.suffix == ".pyc" or file.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
                continue
            name = str(file)
            if name.startswith(".."):  # outside of site-packages: a program, which pip makes for entry points
                if path.name in scripts or path.parent.name != "bin":
                    continue
                name = f"{stem}.data/scripts/{path.name}"
            wheel.write(path, name)
            entries.append(name)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*entries, f"{info}/RECORD"]))
    return target


def _closure(needed: list[Requirement]) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    waiting = [*needed]
    while waiting:
        requirement = waiting.pop()
        if str(requirement) not in found:
            dist = found[str(requirement)] = distribution(requirement.name)
            waiting += _requirements(dist.requires or [], requirement.extras)
    return [*found.values()]


def _requirements(texts: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
    """Return the requirements that hold here for these extras."""
    chosen = ["", *extras]
    parsed = map(Requirement, texts)
    return [each for each in parsed if not each.marker or any(each.marker.evaluate({"extra": name}) for name in chosen)]
