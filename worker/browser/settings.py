"""Settings of the tool `browser`, and what it needs of the worker's host."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from infra.contract.execution import ExecLimits
from infra.settings import Env, SettingsError
from worker.browser.driver import policies

BrowserPlace: TypeAlias = Literal["host", "image", "nowhere"]
EVALUATE = "BROWSER_EVALUATE"
CHROMIUM = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser")
"""Debian's program itself, because the script before it reads settings of the host; else what the path has."""
MODULES = ("playwright", "greenlet")
FOLDER = "/opt/browser"
"""Folder with the program that drives Playwright, and in the sandbox with Playwright too."""
DRIVER = "worker/browser/driver"

LIMITS = ExecLimits(memory_bytes=4 * 1024**3, processes=2048)
"""With 256 processes the fifth page crashes; with 1 GiB, the browser is killed."""


@dataclass(frozen=True)
class BrowserSettings:
    """Settings of the tool. `evaluate`: calls may evaluate JavaScript of their own in pages. `place`: where Chromium
    and Playwright are, the worker's host or the image of its pods."""

    evaluate: bool = False
    place: BrowserPlace = "host"
    limits: ExecLimits = LIMITS

    @classmethod
    def from_env(cls, env: Env) -> "BrowserSettings":
        """Read `BROWSER_EVALUATE`. Raises SettingsError."""
        text = env.text(EVALUATE, "off")
        if text not in {"on", "off"}:
            raise SettingsError(f"{EVALUATE} must be 'on' or 'off', not '{text}'")
        return cls(evaluate=text == "on")

    @property
    def is_installed(self) -> bool:
        """True if a browser can be started, as far as the worker can see."""
        return self.place == "image" or (self.place == "host" and installation() is not None)


@dataclass(frozen=True)
class Installation:
    """Chromium, and what it and its driver need of the host; `mounts` and `etc` as in Command."""

    chromium: str
    mounts: Mapping[str, Path]
    etc: Mapping[str, str]


IN_IMAGE = Installation(CHROMIUM[0], mounts={}, etc={})
"""Installation in the image `tools-browser` (k8s/images), which has all files in their places."""


@cache
def installation() -> Installation | None:
    """Return what this host has; None if Chromium or Playwright is missing. Looked up once, imports nothing."""
    chromium = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    specs = {name: find_spec(name) for name in MODULES}
    mounts = {
        f"{FOLDER}/{name}": Path(spec.origin).parent for name, spec in specs.items() if spec is not None and spec.origin
    }
    if chromium is None or len(mounts) < len(MODULES):
        return None
    mounts[f"{FOLDER}/{DRIVER}"] = Path(__file__).parent / "driver"
    return Installation(chromium, mounts, {policies.FILE: policies.text()})
