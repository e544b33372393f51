"""Write the list of an image's software in CycloneDX: `python3 sbom.py NAME VERSION FILE [PYTHON…]`, in the image.

Each file PYTHON is a list that cyclonedx-py wrote of a virtual environment; the Debian packages are added here, because
cyclonedx-py does not know them.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

FORMAT = "${binary:Package}\t${Version}\t${Architecture}\t${source:Package}\n"


def debian_packages() -> list[dict[str, Any]]:
    """Return a component for each installed package, by name."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    distribution = f"{release['ID']}-{release.get('VERSION_ID', '')}".replace('"', "").rstrip("-")
    listed = subprocess.check_output(["dpkg-query", "--show", f"--showformat={FORMAT}"], text=True)
    return [_component(line, distribution) for line in sorted(listed.splitlines())]


def _component(line: str, distribution: str) -> dict[str, Any]:
    package, version, architecture, source = line.split("\t")
    name = package.partition(":")[0]
    qualifiers = f"arch={architecture}&distro={distribution}&upstream={quote(source)}"
    purl = f"pkg:deb/{distribution.partition('-')[0]}/{quote(name, safe='')}@{quote(version, safe='')}?{qualifiers}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def document(name: str, version: str, python: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the list of an image from the lists of its environments."""
    schema = python[0]["specVersion"] if python else "1.6"
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{schema}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": schema,
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": name, "name": name, "version": version}},
        "components": [component for part in python for component in part["components"]] + debian_packages(),
        "dependencies": [dependency for part in python for dependency in part.get("dependencies", [])],
    }


if __name__ == "__main__":
    image, release, target, *lists = sys.argv[1:]
    made = document(image, release, [json.loads(Path(path).read_text()) for path in lists])
    Path(target).write_text(json.dumps(made, indent=1))
