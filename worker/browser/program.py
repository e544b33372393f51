"""Program of a session: the driver of Chromium, with its limits, its files and the policies of the browser."""

from infra.contract.errors import ExecutorUnavailable
from worker.browser.replies import MAX_REPLY_BYTES
from worker.browser.settings import FOLDER, IN_IMAGE, BrowserSettings, installation
from worker.toolkit.base import SessionProgram

_SOURCE = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {folder!r})
try:
    from worker.browser.driver.program import main
except ModuleNotFoundError as error:
    sys.exit(f"{{error}}: the image of the pod has no browser of this release, see KUBERNETES_BROWSER_IMAGE")
main({options!r})
"""


def browser_program(settings: BrowserSettings, network: tuple[str, ...]) -> SessionProgram:
    """Return the program for a session with this network. Raises ExecutorUnavailable if something is missing for it."""
    if settings.place == "nowhere":
        raise ExecutorUnavailable(
            "the tool 'browser' needs an image for its pods: KUBERNETES_BROWSER_IMAGE of the worker is not set"
        )
    found = IN_IMAGE if settings.place == "image" else installation()
    if found is None:
        raise ExecutorUnavailable(
            "the tool 'browser' needs Chromium and Playwright on this worker's host: 'apt-get install chromium' and "
            "the extra `browser` of swissbrain-server"
        )
    return SessionProgram(
        source=_SOURCE.format(folder=FOLDER, options={"executable": found.chromium}),
        max_reply_bytes=MAX_REPLY_BYTES,
        limits=settings.limits,
        network=network,
        mounts=found.mounts,
        etc=found.etc,
    )
