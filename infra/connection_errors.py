"""Errors of connections to hosts that users have named, in words that repeat nothing of a URL."""

import os
import ssl

import httpx


def described(exc: BaseException, connect_s: float) -> str:
    """Return what is known of an error of a connection; the texts of libraries may contain the URL.

    `connect_s`: deadline for connecting.
    """
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or 'closed'}"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    if isinstance(exc, httpx.TimeoutException):
        return f"no connection within {connect_s:g} s"
    if isinstance(exc, httpx.ProtocolError):
        return "the answer is not valid HTTP, or was cut"
    return f"the connection was lost ({type(exc).__name__})"
