"""Everything on one machine, from the shipped units: installed, used through Caddy, killed, saved, lost, restored."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.vm.commands import Vm
from deploy.vm.layout import PARTS, Layout
from infra.settings import S3Settings
from infra.workspace import Workspaces
from swissbrain import Client, Event
from swissbrain.errors import ApiError
from swissbrain.plan import file_write, shell
from tests.support.s3 import s3_server, variables_of
from tests.support.waiting import wait_until
from tests.vm.ports import all_ports
from tests.vm.releases import working
from tests.vm.supervisor import SupervisedMachine, Supervisor

SLOW = "for number in 1 2 3 4 5 6 7 8; do echo $number; sleep 0.25; done; cat in.txt > out.txt"


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Settings]:
    """Run an object store of its own, with an empty bucket."""
    with s3_server(tmp_path) as settings:
        workspaces = Workspaces(settings)
        asyncio.run(workspaces.ensure_bucket())
        workspaces.close()
        yield settings


class AcceptingReceiver(BaseHTTPRequestHandler):
    """Receiver of webhooks that accepts every event."""

    def do_POST(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    """Run a receiver of webhooks; yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), AcceptingReceiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()


def values(s3: S3Settings, receiver: str) -> dict[str, dict[str, str]]:
    return {
        "api.env": {"EDGE_WEBHOOK_PRIVATE_HOSTS": urlsplit(receiver).netloc},
        "web.env": {"SITE_ADDRESS": "localhost"},
        "shared.env": variables_of(s3),
        "ports.env": all_ports(),
    }


def test_an_installation_works_through_caddy_survives_kills_and_comes_back_from_a_backup(
    s3: S3Settings, receiver: str, supervisor: Supervisor, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = SupervisedMachine(supervisor)
    vm = Vm(machine, layout, build=working)
    vm.install(values(s3, receiver), "ada")

    (token,) = (line.split()[-1] for line in machine.lines if line.startswith("API key"))
    wait_until(lambda: "certificate obtained" in supervisor.log("swissbrain-web.service"), "Caddy has a certificate")
    authority = layout.state / "web" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with Client(f"https://localhost:{supervisor.extra['swissbrain-web.service']['HTTPS_PORT']}", token) as client:
        run_id = _survives_kills(client, supervisor)

        supervisor.start("swissbrain-sweep.service")
        supervisor.start("swissbrain-backup.service")
        later = client.create_run(shell("true"), webhook_url=receiver).run_id
        client.wait(later)
        wait_until(lambda: [each.state for each in client.webhook_deliveries(later)] == ["delivered"], "the webhook")
        _lose_everything(supervisor, layout)
        vm.restore(None, None)

        assert client.read_text(run_id, "out.txt") == "kept"
        assert client.get_run(run_id).status == "succeeded"
        with pytest.raises(ApiError) as unknown:
            client.get_run(later)
        assert unknown.value.status == 404


def _survives_kills(client: Client, supervisor: Supervisor) -> str:
    """Follow a run while the main process of each part is killed; return its id."""
    run_id = client.create_run([file_write("in.txt", "kept"), shell(SLOW)]).run_id
    events = client.events(run_id)
    seen = [next(item for item in events if isinstance(item, Event) and item.type == "tool.output").seq]
    former = {part: supervisor.pid(f"swissbrain-{part}.service") for part in PARTS}
    for part in reversed(PARTS):
        supervisor.kill(f"swissbrain-{part}.service")
    seen += [item.seq for item in events if isinstance(item, Event)]
    assert seen == list(range(seen[0], seen[-1] + 1))
    assert client.read_text(run_id, "out.txt") == "kept"
    assert all(supervisor.pid(f"swissbrain-{part}.service") != pid for part, pid in former.items())
    return run_id


def _lose_everything(supervisor: Supervisor, layout: Layout) -> None:
    """Lose the data of Valkey and the settings; the object store stays."""
    supervisor.stop("swissbrain.target")
    for each in layout.valkey.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    layout.api_keys.write_text("[]")
