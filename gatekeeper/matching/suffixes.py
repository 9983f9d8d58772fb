"""Public suffixes, and other hosts whose subdomains have different owners.

The only importer of tldextract, which here reads its bundled copy of the Public Suffix List, without network or disk cache.
tldextract is imported when the first wildcard is compiled, because its import takes longer than the rest of the package.
What runs in an event loop has it loaded in a thread before that.
"""

from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tldextract import TLDExtract

__all__ = ("has_public_suffixes", "is_public_suffix", "is_shared_host", "load_public_suffixes")

_LOADING: Final = Lock()
_PATIENCE: Final = 2.0  # seconds for which a thread leaves the loading to another one

# Hosts that give subdomains to their customers. None is a rule of the Public Suffix List that tldextract 5.4 bundles, or
# the parent of one: each was looked up. Rules that the list has gained since do no harm here.
_SHARED_HOSTS = frozenset(
    {
        "atlassian.net",
        "bigcartel.com",
        "canva.site",
        "force.com",
        "freshdesk.com",
        "ghost.io",
        "gitbook.io",
        "googleusercontent.com",
        "gumroad.com",
        "hashnode.dev",
        "helpscoutdocs.com",
        "instapage.com",
        "intercom.help",
        "itch.io",
        "jimdosite.com",
        "kajabi.com",
        "lhr.life",
        "livejournal.com",
        "loca.lt",
        "medium.com",
        "neocities.org",
        "nip.io",
        "salesforce.com",
        "service-now.com",
        "sharepoint.com",
        "squarespace.com",
        "sslip.io",
        "substack.com",
        "surge.sh",
        "teachable.com",
        "thinkific.com",
        "tumblr.com",
        "webnode.page",
        "weebly.com",
        "wordpress.com",
        "zendesk.com",
        "zohosites.com",
    }
)


@cache
def _extractor() -> "TLDExtract":
    from tldextract import TLDExtract  # noqa: PLC0415 - the module's docstring says why it is not imported above

    return TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


@cache
def _rules() -> frozenset[str]:
    """The rules of the list, as written there."""
    return frozenset(_extractor().tlds)


@cache
def _wildcard_bases() -> frozenset[str]:
    """Hosts whose direct subdomains are all public suffixes: kobe.jp for *.kobe.jp."""
    return frozenset(rule[2:] for rule in _rules() if rule.startswith("*."))


@cache
def _ancestors_of_suffixes() -> frozenset[str]:
    """Parent domains of public suffixes, such as amazonaws.com of s3.amazonaws.com."""
    ancestors = set()
    for rule in _rules():
        host = rule
        while host := host.partition(".")[2]:
            ancestors.add(host)
    return frozenset(ancestors)


def has_public_suffixes() -> bool:
    """Whether the list is loaded."""
    return _wildcard_bases.cache_info().currsize > 0


def load_public_suffixes() -> None:
    """Load the list, unless it is loaded. This takes 0.1 to 0.3 s.

    Of several threads, one loads it: each would take 12 MB.
    """
    # A fork can leave the lock held for good.
    is_first = _LOADING.acquire(timeout=_PATIENCE)
    try:
        _wildcard_bases()
    finally:
        if is_first:
            _LOADING.release()


def is_public_suffix(host: str) -> bool:
    """Whether a host is a public suffix, ICANN or private.

    Args:
        host: a lower-case host name in A-labels that the grammar of entries accepts.

    Returns:
        True for "co.uk", "github.io" and "kobe.jp" (its direct subdomains are public suffixes); False for "acme.com".
    """
    if host in _wildcard_bases():
        return True
    # A host without a rule is not a public suffix (https://publicsuffix.org/list/, "Algorithm"). This spares most hosts the
    # 2.4 µs that tldextract takes. The list has internationalised names in Unicode, so those always go to tldextract.
    if host not in _rules() and host.partition(".")[2] not in _wildcard_bases() and "xn--" not in host:
        return False
    return _extractor().extract_str(host).suffix == host


def is_shared_host(host: str) -> bool:
    """Whether subdomains have different owners, though it is no public suffix.

    Args:
        host: as for `is_public_suffix`.

    Returns:
        True for "amazonaws.com" (above the public suffix s3.amazonaws.com) and "zendesk.com"; False for "acme.com".
    """
    return host in _SHARED_HOSTS or host in _ancestors_of_suffixes()
