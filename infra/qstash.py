"""QStash: schedules that it keeps for us, and the check of the calls that it makes.

The SDK is imported at the first call, because a cold start of the API must not pay for it.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from infra.contract.errors import CallRejected, QStashUnavailable
from infra.contract.webhooks import MAX_RETRIES
from infra.settings import QStashAccess, QStashSettings

if TYPE_CHECKING:
    from qstash import AsyncQStash

TIMEOUT_S = 10.0
ISSUER = "Upstash"
MAX_AGE_S = 300
"""Age up to which a signed call is accepted: the validity of QStash's signatures."""
LEEWAY_S = 30
"""Difference of clocks that is tolerated."""
PARALLEL = 8
"""Messages of one user that are delivered at a time: receivers that do not answer delay no event of others."""
_NOT_FOUND = "status: 404"


class QStashPublisher:
    """Client of QStash. Paths are paths of the API, below its public URL."""

    def __init__(self, access: QStashAccess) -> None:
        self._access = access
        self._client: AsyncQStash | None = None

    async def publish(self, path: str, body: str, deduplication_id: str, sharer: str) -> None:
        """Let QStash POST the body to a path, once for the same id within 10 minutes. Raises QStashUnavailable.

        `sharer`: of the messages of one sharer, PARALLEL are delivered at a time.
        """
        # A key of QStash has letters, digits and few other characters.
        key = f"sharer-{hashlib.sha256(sharer.encode()).hexdigest()[:32]}"
        await self._call(
            lambda qstash: qstash.message.publish(
                url=f"{self._access.public_url}{path}",
                body=body,
                content_type="application/json",
                method="POST",
                retries=MAX_RETRIES,
                deduplication_id=deduplication_id,
                flow_control={"key": key, "parallelism": PARALLEL},
            )
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.http._client.aclose()

    async def _call(self, call: Any) -> None:
        import httpx
        from qstash import AsyncQStash
        from qstash.errors import QStashError

        if self._client is None:
            # Without the retries of the SDK: its callers repeat the request, within deadlines of their own.
            self._client = AsyncQStash(self._access.token, retry=False, base_url=self._access.url)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await call(self._client)
        except TimeoutError:
            raise QStashUnavailable(f"QStash did not answer within {TIMEOUT_S:g} s") from None
        except QStashError as exc:
            raise QStashUnavailable(f"QStash refused: {exc}"[:500]) from exc
        except (httpx.HTTPError, OSError) as exc:
            raise QStashUnavailable(f"no answer from QStash: {type(exc).__name__}") from exc
        except (ValueError, LookupError, TypeError, AttributeError) as exc:
            # The SDK reads any answer with a good status as one of QStash, also the page of a proxy.
            raise QStashUnavailable("the answer is none of QStash; check QSTASH_URL") from exc


class QStash(QStashPublisher):
    """Client of QStash with its schedules, and verifier of its calls."""

    def __init__(self, settings: QStashSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    async def put_schedule(self, schedule_id: str, path: str, cron: str, body: str) -> None:
        """Let QStash POST the body to a path whenever the expression is due; replace an earlier such schedule.

        Raises QStashUnavailable.
        """
        await self._call(
            lambda qstash: qstash.schedule.create(
                destination=f"{self._settings.public_url}{path}",
                cron=cron,
                body=body,
                content_type="application/json",
                method="POST",
                retries=MAX_RETRIES,
                schedule_id=schedule_id,
            )
        )

    async def delete_schedule(self, schedule_id: str) -> None:
        """Delete a schedule, which need not exist. Raises QStashUnavailable."""
        try:
            await self._call(lambda qstash: qstash.schedule.delete(schedule_id))
        except QStashUnavailable as exc:
            if _NOT_FOUND not in str(exc):
                raise

    def check_call(self, signature: str, path: str, body: bytes, now_s: float) -> None:
        """Check a call to a path, signed with the current or the next key. Raises CallRejected.

        Not with the SDK's receiver: it takes text and not bytes, ignores its tolerance of clocks, accepts signatures of
        any age, and fails with KeyError where a claim is missing.
        """
        import jwt

        claims: dict[str, Any] | None = None
        for key in (self._settings.current_signing_key, self._settings.next_signing_key):
            try:
                claims = jwt.decode(
                    signature,
                    key,
                    algorithms=["HS256"],
                    issuer=ISSUER,
                    options={
                        "require": ["iss", "sub", "exp", "nbf", "iat", "body"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
                break
            except jwt.InvalidTokenError:
                continue
        if claims is None:
            raise CallRejected("the signature is missing, or was not made with one of the keys")
        _check_times(claims, now_s)
        if claims["sub"] != f"{self._settings.public_url}{path}":
            raise CallRejected("the signature is for another URL than EDGE_PUBLIC_URL with this path")
        if not hmac.compare_digest(_digest_of(claims["body"]), hashlib.sha256(body).digest()):
            raise CallRejected("the signature is for another body")


def _check_times(claims: dict[str, Any], now_s: float) -> None:
    """Raise CallRejected unless the signature is valid now, and not older than MAX_AGE_S."""
    times = [claims[name] for name in ("nbf", "exp", "iat")]
    if not all(isinstance(each, int | float) for each in times):
        raise CallRejected("the times of the signature are no numbers")
    not_before, expiry, issued = times
    if now_s < max(not_before, issued) - LEEWAY_S or now_s > min(expiry, issued + MAX_AGE_S) + LEEWAY_S:
        raise CallRejected("the signature has expired, or is not valid yet; compare the clocks of both hosts")


def _digest_of(claim: object) -> bytes:
    text = claim if isinstance(claim, str) else ""
    try:
        return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except (binascii.Error, ValueError):
        return b""
