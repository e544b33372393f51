"""The API on AWS Lambda, through osls: deploy a package, return to an earlier one."""

import hashlib
import re
from pathlib import Path

from infra.deploy.description import Edge
from infra.deploy.errors import DeployFailed
from infra.deploy.programs import ProgramFailed, Programs
from infra.deploy.record import EdgeState

OSLS = Path("deploy") / "edge" / "node_modules" / ".bin" / "osls"
PACKAGE = Path("build") / "edge" / "edge.zip"
_TIMESTAMP = re.compile(r"Timestamp: (\d+)")


class EdgeDeployment:
    """The edge of a description. All methods may raise DeployFailed."""

    def __init__(self, programs: Programs, edge: Edge) -> None:
        self._programs = programs
        self._edge = edge
        self._folder = Path(edge.folder).resolve()

    def missing(self) -> str:
        """Return what is missing on this machine, and what helps; an empty text if nothing is."""
        if not (self._folder / "serverless.yml").is_file():
            return f"{self._edge.folder} has no serverless.yml; set 'folder' of [edge] to a checkout"
        if not (self._folder / OSLS).exists():
            return f"osls is not installed; run 'npm ci --prefix {self._edge.folder}/deploy/edge --ignore-scripts'"
        if not (self._folder / PACKAGE).is_file():
            return "there is no package; run 'make package-edge'"
        return ""

    def package(self) -> str:
        """Return the SHA-256 of the package."""
        try:
            return hashlib.sha256((self._folder / PACKAGE).read_bytes()).hexdigest()
        except OSError as exc:
            raise DeployFailed(f"{PACKAGE}: {exc.strerror}; run 'make package-edge'") from None

    def timestamps(self) -> list[str]:
        """Return the names of all deployments that are kept, the newest last; none before the first deployment."""
        try:
            shown = self._programs.read(*self._osls("deploy", "list"), cwd=self._folder)
        except ProgramFailed as exc:
            if re.search("does not exist", str(exc)):
                return []
            raise
        return sorted(_TIMESTAMP.findall(shown), key=int)

    def deploy(self) -> None:
        """Deploy the package, whether or not it differs from the last one.

        Without `--force`, osls compares it with the newest package of the bucket: after a rollback it would not deploy
        that one again. A new value of the secret needs it too.
        """
        self._programs.change(*self._osls("deploy"), "--force", cwd=self._folder, tries=1)

    def roll_back(self, to: EdgeState) -> None:
        """Return to an earlier deployment. Harmless if that is what runs."""
        if (to.stage, to.region) != (self._edge.stage, self._edge.region):
            raise DeployFailed(
                f"the last deployment was to stage {to.stage} in {to.region}, the description says {self._edge.stage} "
                f"in {self._edge.region}"
            )
        # The template of that deployment has its own values; the parameters are needed to read serverless.yml.
        command = self._osls("rollback", params=to.params)
        self._programs.change(*command, f"--timestamp={to.timestamp}", cwd=self._folder, tries=1)

    def state(self, timestamp: str) -> EdgeState:
        """Return what the record keeps of a deployment."""
        edge = self._edge
        return EdgeState(
            timestamp=timestamp, package=self.package(), stage=edge.stage, region=edge.region, params=dict(edge.params)
        )

    def _osls(self, *command: str, params: dict[str, str | int] | None = None) -> list[str]:
        edge = self._edge
        given = sorted((edge.params if params is None else params).items())
        return [
            *(str(self._folder / OSLS), *command, f"--stage={edge.stage}", f"--region={edge.region}"),
            *(f"--param={name}={value}" for name, value in given),
        ]
