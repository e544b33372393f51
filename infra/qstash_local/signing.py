"""Signatures of deliveries: what a receiver checks to know that a call comes from here, unchanged and just now."""

import base64
import hashlib
import secrets
import time

import jwt

ISSUER = "Upstash"
VALID_S = 300
"""Time for which a signature is valid, as that of QStash."""


def sign(key: str, url: str, body: bytes) -> str:
    """Return the value of `Upstash-Signature`: a JSON Web Token (HS256) over the exact URL and the body."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": url,
        "iat": now,
        "nbf": now,
        "exp": now + VALID_S,
        "jti": f"jwt_{secrets.token_hex(16)}",
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
    }
    return jwt.encode(claims, key, algorithm="HS256")
