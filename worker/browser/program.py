"""Program of a session: the driver of Chromium, with its limits, its files and the policies of the browser."""

import json

from infra.contract.errors import ExecutorUnavailable
from worker.browser.replies import MAX_REPLY_BYTES
from worker.browser.settings import FOLDER, BrowserSettings, installation
from worker.toolkit.base import SessionProgram

POLICIES = {
    # Whatever asks for a navigation: the tool, the page, a redirect.
    "URLBlocklist": ["*"],
    "URLAllowlist": ["http://*", "https://*", "about:blank", "about:srcdoc"],
    "DnsOverHttpsMode": "off",
    "BuiltInDnsClientEnabled": False,
    "QuicAllowed": False,
    "NetworkPredictionOptions": 2,
    "WebRtcIPHandling": "disable_non_proxied_udp",
    "SafeBrowsingProtectionLevel": 0,
    "ComponentUpdatesEnabled": False,
    "MetricsReportingEnabled": False,
    "BackgroundModeEnabled": False,
    "BrowserSignin": 0,
    "SyncDisabled": True,
    "SearchSuggestEnabled": False,
    "SpellCheckServiceEnabled": False,
    "TranslateEnabled": False,
    "PasswordManagerEnabled": False,
    "AutofillAddressEnabled": False,
    "AutofillCreditCardEnabled": False,
    "ExtensionInstallBlocklist": ["*"],
    "DefaultGeolocationSetting": 2,
    "DefaultNotificationsSetting": 2,
    "DefaultSensorsSetting": 2,
    "DefaultSerialGuardSetting": 2,
    "DefaultWebBluetoothGuardSetting": 2,
    "DefaultWebUsbGuardSetting": 2,
    "DefaultFileSystemReadGuardSetting": 2,
    "DefaultFileSystemWriteGuardSetting": 2,
    "AudioCaptureAllowed": False,
    "VideoCaptureAllowed": False,
}
"""Policies of Chromium, which no page and no call can change."""

_SOURCE = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {folder!r})
from worker.browser.driver.program import main
main({options!r})
"""


def browser_program(settings: BrowserSettings, network: tuple[str, ...]) -> SessionProgram:
    """Return the program for a session with this network. Raises ExecutorUnavailable if this host lacks something."""
    found = installation()
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
        etc={"chromium/policies/managed/swissbrain.json": json.dumps(POLICIES)},
    )
