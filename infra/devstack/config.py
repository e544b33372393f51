"""Configuration of a running stack: its data folder, ports and credentials, and the addresses derived from them."""

from dataclasses import dataclass

from infra.devstack import s3_server
from infra.devstack.credentials import Credentials
from infra.devstack.data_dir import DataDir
from infra.devstack.port_numbers import HOST, Ports
from infra.settings import S3Settings

BUCKET = "swissbrain-workspaces"
USER = "dev"
SCOPES = ("runs:read", "runs:write", "runs:approve")


@dataclass(frozen=True)
class StackConfig:
    """Everything that the command lines, environments and readiness checks of the processes are built from."""

    data_dir: DataDir
    ports: Ports
    credentials: Credentials

    @property
    def api_url(self) -> str:
        """URL of the HTTP API."""
        return f"http://{HOST}:{self.ports.api}"

    @property
    def rest_url(self) -> str:
        """URL of the Upstash REST gateway."""
        return f"http://{HOST}:{self.ports.gateway}"

    @property
    def qstash_variables(self) -> dict[str, str]:
        """Settings of the stand-in of QStash that its clients share, as environment variables."""
        return {
            "QSTASH_TOKEN": self.credentials.qstash_token,
            "QSTASH_CURRENT_SIGNING_KEY": self.credentials.qstash_current_signing_key,
            "QSTASH_NEXT_SIGNING_KEY": self.credentials.qstash_next_signing_key,
        }

    @property
    def qstash_url(self) -> str:
        """URL of the stand-in of QStash."""
        return f"http://{HOST}:{self.ports.qstash}"

    @property
    def redis_url(self) -> str:
        """URL of Valkey, with its password."""
        return f"redis://:{self.credentials.redis_password}@{HOST}:{self.ports.redis}/0"

    @property
    def s3(self) -> S3Settings:
        """Settings for clients of the S3 server."""
        keys = self.credentials
        return s3_server.settings_for(self.ports.s3, BUCKET, keys.s3_access_key, keys.s3_secret_key)

    @property
    def s3_variables(self) -> dict[str, str]:
        """Settings for clients of the S3 server, as environment variables."""
        s3 = self.s3
        return {
            "S3_ENDPOINT_URL": s3.endpoint_url or "",
            "S3_BUCKET": s3.bucket,
            "S3_REGION": s3.region,
            "S3_ACCESS_KEY": s3.access_key,
            "S3_SECRET_KEY": s3.secret_key,
        }

    @property
    def variables(self) -> dict[str, str]:
        """Content of `dev.env`: addresses and credentials of all services."""
        return {
            "SWISSBRAIN_API_URL": self.api_url,
            "SWISSBRAIN_TOKEN": self.credentials.api_token,
            "UPSTASH_REDIS_REST_URL": self.rest_url,
            "UPSTASH_REDIS_REST_TOKEN": self.credentials.rest_token,
            "REDIS_URL": self.redis_url,
            "EDGE_PUBLIC_URL": self.api_url,
            "QSTASH_URL": self.qstash_url,
            **self.qstash_variables,
            **self.s3_variables,
        }
