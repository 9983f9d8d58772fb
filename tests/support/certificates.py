"""Good and bad certificates of a hub, and a client that trusts their authority."""

import datetime as dt
import ssl
import warnings
from pathlib import Path

import httpx
import trustme

__all__ = ("Certificates",)

DAY = dt.timedelta(days=1)


class Certificates:
    """A certificate authority, and certificates for 127.0.0.1."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._now = dt.datetime.now(dt.UTC)

    def write_authority(self, path: Path) -> Path:
        """Write the certificate of the authority to a PEM file."""
        self._authority.cert_pem.write_to_path(path)
        return path

    def client(self) -> httpx.AsyncClient:
        """Make a client that trusts the authority."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return httpx.AsyncClient(verify=context, trust_env=False, timeout=60)

    def right(self) -> ssl.SSLContext:
        """A good certificate."""
        return _speaking_as(self._authority.issue_cert("127.0.0.1"))

    def of(self, *hosts: str) -> ssl.SSLContext:
        """A good certificate of other hosts."""
        return _speaking_as(self._authority.issue_cert(*hosts))

    def expired(self) -> ssl.SSLContext:
        """A certificate that has expired."""
        return _speaking_as(
            self._authority.issue_cert("127.0.0.1", not_before=self._now - 2 * DAY, not_after=self._now - DAY)
        )

    def of_tomorrow(self) -> ssl.SSLContext:
        """A certificate that is not valid yet."""
        return _speaking_as(
            self._authority.issue_cert("127.0.0.1", not_before=self._now + DAY, not_after=self._now + 2 * DAY)
        )

    def of_another_host(self) -> ssl.SSLContext:
        """The certificate of another host."""
        return _speaking_as(self._authority.issue_cert("hub.example"))

    def of_an_unknown_authority(self) -> ssl.SSLContext:
        """A certificate of an unknown authority."""
        return _speaking_as(trustme.CA().issue_cert("127.0.0.1"))

    def of_old(self) -> ssl.SSLContext:
        """A server that supports only TLS 1.0."""
        context = self.right()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 is deprecated
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
        return context


def _speaking_as(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
