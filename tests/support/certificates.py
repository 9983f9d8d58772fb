"""Certificates of a hub, right and wrong, and a client that trusts their authority."""

import datetime as dt
import ssl
import warnings

import httpx
import trustme

__all__ = ("Certificates",)

DAY = dt.timedelta(days=1)


class Certificates:
    """An authority, and what it signs for 127.0.0.1."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._now = dt.datetime.now(dt.UTC)

    def client(self) -> httpx.AsyncClient:
        """Make a client that trusts the authority."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return httpx.AsyncClient(verify=context, trust_env=False, timeout=60)

    def right(self) -> ssl.SSLContext:
        """Speak as a hub should."""
        return _speaking_as(self._authority.issue_cert("127.0.0.1"))

    def expired(self) -> ssl.SSLContext:
        """Show a certificate of yesterday."""
        return _speaking_as(
            self._authority.issue_cert("127.0.0.1", not_before=self._now - 2 * DAY, not_after=self._now - DAY)
        )

    def of_tomorrow(self) -> ssl.SSLContext:
        """Show what a client whose clock is a day slow sees."""
        return _speaking_as(
            self._authority.issue_cert("127.0.0.1", not_before=self._now + DAY, not_after=self._now + 2 * DAY)
        )

    def of_somebody_else(self) -> ssl.SSLContext:
        """Show another host's certificate."""
        return _speaking_as(self._authority.issue_cert("hub.example"))

    def of_an_unknown_authority(self) -> ssl.SSLContext:
        """Show a certificate that another authority has signed."""
        return _speaking_as(trustme.CA().issue_cert("127.0.0.1"))

    def of_old(self) -> ssl.SSLContext:
        """Speak TLS 1.0 alone."""
        context = self.right()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that nobody should speak it
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
        return context


def _speaking_as(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
