"""Settings of an installation: files of the operator, secrets that are generated once, and what follows from both."""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from deploy.vm import env_files
from deploy.vm.layout import Layout
from deploy.vm.machine import Machine, UsageError
from infra.gateway.acl import ACL_RULES

TEMPLATES = Path(__file__).with_name("settings")
VERIFY_USER = "swissbrain-verify"
SCOPES = ("runs:read", "runs:write", "runs:approve")
HOST = "127.0.0.1"
SECRETS = {
    "valkey_gateway": 32,
    "valkey_worker": 32,
    "valkey_qstash": 32,
    "valkey_backup": 32,
    "rest_token": 32,
    "stream_token_key": 48,
    "qstash_token": 32,
    "qstash_current_signing_key": 48,
    "qstash_next_signing_key": 48,
    "webhook_key": 48,
    "verify_token": 32,
}
"""Names of the secrets, and the bytes of randomness in each."""
REQUIRED = {"web.env": ("SITE_ADDRESS",), "shared.env": ("S3_ACCESS_KEY", "S3_SECRET_KEY")}
"""Variables that only the operator knows."""
USERS = {
    "gateway": ACL_RULES,
    "worker": ACL_RULES,
    "qstash": "~{qstash}:* &* +@all -@admin -@dangerous +info",
    "backup": "resetkeys resetchannels -@all +ping +sync",
}
"""Rules of each user of Valkey. There is no default user."""
_DOMAIN = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_FORMS = {
    "S3_ENDPOINT_URL": (re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#@]*)?"), "a URL such as https://sos-ch-gva-2.exo.io"),
    "S3_REGION": (re.compile(r"[A-Za-z0-9-]{1,64}"), "a name such as ch-gva-2"),
    "S3_BUCKET": (re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]"), "the name of a bucket"),
}
"""What the values of variables look like: a wrong one would show only when a part does not start."""
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@.-]{0,63}")


@dataclass(frozen=True)
class Ports:
    """Ports on the loopback interface. The units read them from the generated settings."""

    valkey: int = 6379
    gateway: int = 8079
    qstash: int = 8080
    api: int = 8787
    worker_health: int = 8081


_PORTS = {f"{each.name.upper()}_PORT": each.name for each in fields(Ports)}


class Settings:
    """Settings of the installation in a layout. Methods raise UsageError and OSError."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self._layout = layout
        self._machine = machine

    def variables(self, *names: str) -> dict[str, str]:
        """Return the variables of files below the folder of the settings; later files override earlier ones."""
        found: dict[str, str] = {}
        for name in names:
            found |= env_files.read(self._layout.settings / name)
        return found

    def ports(self) -> Ports:
        """Return the ports of all parts."""
        found = self.variables("ports.env")
        if unknown := sorted(set(found) - set(_PORTS)):
            raise UsageError(f"ports.env: {unknown[0]} is none of {', '.join(_PORTS)}")
        if wrong := [name for name, text in found.items() if not (text.isdecimal() and 0 < int(text) < 65536)]:
            raise UsageError(f"ports.env: {wrong[0]} must be a port, not {found[wrong[0]]!r}")
        ports = Ports(**{_PORTS[name]: int(text) for name, text in found.items()})
        if len(set(astuple(ports))) < len(_PORTS):
            raise UsageError("ports.env: two parts have the same port")
        return ports

    def secrets(self) -> dict[str, str]:
        """Return the secrets. Raises UsageError if there is no installation, or the file is damaged."""
        try:
            found = json.loads(self._layout.secrets.read_text())
        except FileNotFoundError:
            raise UsageError(f"{self._layout.secrets} does not exist; install first") from None
        except ValueError:
            raise UsageError(f"{self._layout.secrets} is damaged; restore it from a backup") from None
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise UsageError(f"{self._layout.secrets} is damaged; restore it from a backup")
        return found

    def create(self, values: Mapping[str, Mapping[str, str]], user: str) -> str | None:
        """Write the operator's files, where they are missing, and set some values in them; return a new API key.

        `values`: values of variables by the names of the files. The key belongs to `user`; None: there are keys.
        """
        if not _USER.fullmatch(user):
            raise UsageError(f"{user[:80]!r} is no user: 1 to 64 letters, digits, '_', '@', '.' and '-'")
        texts = {}
        for template in sorted(TEMPLATES.glob("*.env")):
            path = self._layout.settings / template.name
            text = path.read_text() if path.exists() else template.read_text()
            texts[path] = env_files.with_values(text, values.get(template.name, {}))
            self._check(path, env_files.parse(texts[path], str(path)))
        self._machine.folder(self._layout.settings, 0o700)
        for path, text in texts.items():
            self._machine.write(path, text, 0o600)
        token = None if self._layout.api_keys.exists() else f"sb_{secrets.token_urlsafe(24)}"
        if token:
            self._machine.write(self._layout.api_keys, _json([_entry(user, token)]), 0o600)
        return token

    def complete(self) -> None:
        """Generate secrets that are missing, and write what follows from them. An upgrade may need new ones."""
        found = self.secrets() if self._layout.secrets.exists() else {}
        found |= {name: secrets.token_urlsafe(size) for name, size in SECRETS.items() if name not in found}
        # Before what follows from them: if this is interrupted, the next time uses the same ones.
        self._machine.write(self._layout.secrets, _json(found), 0o600)
        self._machine.folder(self._layout.generated, 0o700)
        for name, variables in _environments(found, self.ports()).items():
            text = env_files.text_of(variables, "Generated from secrets.json; changes are overwritten.")
            self._machine.write(self._layout.generated / name, text, 0o600)
        users = [f"user {name} on >{found[f'valkey_{name}']} {rules}\n" for name, rules in USERS.items()]
        self._machine.write(self._layout.generated / "users.acl", "".join(["user default off\n", *users]), 0o600)
        self._machine.write(self._layout.generated / "stream-token-key", f"{found['stream_token_key']}\n", 0o600)
        self._allow_verification(found["verify_token"])

    def verification(self) -> dict[str, str]:
        """Return the variables with which `swissbrain verify` reaches every part."""
        own = self.variables("generated/api.env", "generated/worker.env", "shared.env")
        return own | {
            "SWISSBRAIN_API_URL": f"http://{HOST}:{self.ports().api}",
            "SWISSBRAIN_TOKEN": self.secrets()["verify_token"],
        }

    def backup_url(self) -> str:
        """Return the URL of Valkey for a snapshot."""
        return f"redis://backup:{self.secrets()['valkey_backup']}@{HOST}:{self.ports().valkey}"

    def _check(self, path: Path, variables: Mapping[str, str]) -> None:
        for name, (form, words) in _FORMS.items():
            if (value := variables.get(name)) and not form.fullmatch(value):
                raise UsageError(f"{name} must be {words}, not {value[:80]!r}")
        for name in REQUIRED.get(path.name, ()):
            if not variables.get(name):
                raise UsageError(f"{name} is not set: give it to install, or write it into {path}")

    def _allow_verification(self, token: str) -> None:
        path = self._layout.api_keys
        if not path.exists():  # only in a dry run
            return
        try:
            entries = json.loads(path.read_text())
            users = {entry["user"]: entry["sha256"] for entry in entries or [{}]}
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"{path} must hold a JSON list of keys with user, scopes and sha256") from None
        wanted = _entry(VERIFY_USER, token)
        if users.get(VERIFY_USER) != wanted["sha256"]:
            kept = [entry for entry in entries if entry["user"] != VERIFY_USER]
            self._machine.write(path, _json([*kept, wanted]), 0o600)


def site_values(domain: str | None, environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the operator's values by file, from the option for the domain and S3 variables. Raises UsageError."""
    if domain is not None and not _DOMAIN.fullmatch(domain):
        raise UsageError(f"{domain[:80]!r} is no domain such as agents.example.ch, in lower case and without https://")
    names = ("S3_ENDPOINT_URL", "S3_REGION", "S3_BUCKET", "S3_ACCESS_KEY", "S3_SECRET_KEY")
    return {
        "web.env": {"SITE_ADDRESS": domain} if domain else {},
        "shared.env": {name: environment[name].strip() for name in names if environment.get(name, "").strip()},
    }


def _environments(found: Mapping[str, str], ports: Ports) -> dict[str, dict[str, str]]:
    """Return the generated environment of each part by the name of its file."""
    publishing = {
        "QSTASH_URL": f"http://{HOST}:{ports.qstash}",
        "QSTASH_TOKEN": found["qstash_token"],
        # Not the public one: calls of schedules, and of events for webhooks, stay on this machine.
        "EDGE_PUBLIC_URL": f"http://{HOST}:{ports.api}",
    }
    signing = {
        "QSTASH_CURRENT_SIGNING_KEY": found["qstash_current_signing_key"],
        "QSTASH_NEXT_SIGNING_KEY": found["qstash_next_signing_key"],
    }

    def redis(user: str) -> str:
        return f"redis://{user}:{found[f'valkey_{user}']}@{HOST}:{ports.valkey}"

    return {
        "valkey.env": {"VALKEY_PORT": str(ports.valkey)},
        "gateway.env": {
            "GATEWAY_REDIS_URL": redis("gateway"),
            "GATEWAY_TOKEN": found["rest_token"],
            "GATEWAY_PORT": str(ports.gateway),
        },
        "qstash.env": {
            "QSTASH_LOCAL_REDIS_URL": redis("qstash"),
            "QSTASH_LOCAL_PORT": str(ports.qstash),
            "QSTASH_TOKEN": found["qstash_token"],
            **signing,
        },
        "api.env": {
            "EDGE_PORT": str(ports.api),
            "UPSTASH_REDIS_REST_URL": f"http://{HOST}:{ports.gateway}",
            "UPSTASH_REDIS_REST_TOKEN": found["rest_token"],
            "EDGE_WEBHOOK_KEY": found["webhook_key"],
            **publishing,
            **signing,
        },
        "worker.env": {
            "REDIS_URL": redis("worker"),
            "WORKER_HEALTH_PORT": str(ports.worker_health),
            # The commands of a Redis of one's own are not billed, so logs can be quicker.
            "WORKER_LOG_WINDOW_MS": "10",
            **publishing,
        },
        "web.env": {"EDGE_PORT": str(ports.api)},
    }


def _entry(user: str, token: str) -> dict[str, object]:
    return {"user": user, "scopes": list(SCOPES), "sha256": hashlib.sha256(token.encode()).hexdigest()}


def _json(value: object) -> str:
    return f"{json.dumps(value, indent=2)}\n"
