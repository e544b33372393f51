"""Rig with workspaces in a real object store, for runs with files."""

import asyncio
import hashlib
import uuid

import httpx

from edge_api.inputs_service import InputService
from infra.contract.files import Input
from infra.contract.runs import ForkOf, PlanStep, RunSpec
from infra.contract.states import Outcome, Status
from infra.workspace import Workspaces
from tests.worker.rig import Rig


class Site:
    """A rig and its workspaces, for runs with input files."""

    def __init__(self, rig: Rig, workspaces: Workspaces) -> None:
        self.rig = rig
        self.store = rig.store
        self.workspaces = workspaces
        self.service = InputService(rig.store, workspaces)

    async def create(self, *commands: str, fork: tuple[str, int] | None = None) -> str:
        run_id = f"run_{uuid.uuid4().hex}"
        plan = [PlanStep(tool="shell", args={"command": command}) for command in commands]
        inputs: dict[str, Input] = {}
        if fork:
            source, journal = await self.store.get(fork[0]), await self.store.journal(fork[0])
            inputs = await self.service.of_fork(source, journal)
        fork_of = ForkOf(run_id=fork[0], from_step=fork[1]) if fork else None
        spec = RunSpec(plan=plan, fork_of=fork_of)
        await self.store.create(run_id, "ada", spec, start=False, digest="d", inputs=inputs)
        return run_id

    async def upload(self, run_id: str, path: str, data: bytes) -> str:
        """Announce and upload a file; return the URL."""
        digest = hashlib.sha256(data).hexdigest()
        entry = await self.service.announce_upload(await self.store.head(run_id), path, len(data), digest)
        headers = self.workspaces.upload_headers(len(data), digest, None)
        url = await self.workspaces.presign_put("ada", run_id, entry.key, 60, headers)
        async with httpx.AsyncClient() as http:
            assert (await http.put(url, content=data, headers=headers)).status_code == 200
        return url

    async def copy(self, run_id: str, path: str, source: str, source_path: str) -> None:
        heads = [await self.store.head(each) for each in (run_id, source)]
        await self.service.announce_copy(heads[0], path, heads[1], source_path)

    async def start(self, run_id: str) -> None:
        run = await self.store.head(run_id)
        reply = await self.service.checked(run, lambda version: self.store.start(run_id, inputs_version=version))
        assert reply == (Outcome.OK, Status.QUEUED)

    async def result(self, run_id: str) -> str:
        """Return the end of a run: its status, or the code of its error."""
        run = await self.rig.ended(run_id)
        return run.error.code if run.error else run.status.value

    async def files(self, run_id: str) -> dict[str, bytes]:
        files = self.workspaces.run("ada", run_id, 0, await self.store.files(run_id))
        return {file.path: await files.read(file.path) for file in await files.list()}

    async def overwrite(self, run_id: str, path: str, data: bytes) -> None:
        """Replace an object as a store would that does not check the checksum of an upload."""
        entry = (await self.store.files(run_id))[path]
        key = f"users/ada/runs/{run_id}/{entry.key}"
        await asyncio.to_thread(self.workspaces._bucket.put, key, data, len(data))
