"""Policies of Chromium for the tool `browser`. Uses the standard library alone.

`python -m worker.browser.driver.policies FILE` writes them for an image.
"""

import json
import sys
from pathlib import Path

FILE = "chromium/policies/managed/swissbrain.json"
"""Path below `/etc`."""
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


def text() -> str:
    """Return the content of the file."""
    return json.dumps(POLICIES)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
