"""Public suffixes, and other hosts where strangers get subdomains.

The only importer of tldextract, which reads the Public Suffix List bundled with it: no network, nothing written to disk.
It is imported when the first wildcard is compiled, because importing it takes longer than the rest of the package.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tldextract import TLDExtract

__all__ = ("is_public_suffix", "is_shared_host")

# Hosts where anybody can get a subdomain, and which neither are nor lie above a rule of the Public Suffix List that
# tldextract 5.4 bundles (looked up one by one; those that the list has since gained do no harm here).
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
    """The rules of the list, as it writes them."""
    return frozenset(_extractor().tlds)


@cache
def _wildcard_bases() -> frozenset[str]:
    """Hosts below which every name is a public suffix, such as kobe.jp by the rule *.kobe.jp."""
    return frozenset(rule[2:] for rule in _rules() if rule.startswith("*."))


@cache
def _ancestors_of_suffixes() -> frozenset[str]:
    """Hosts that are no public suffix and have some below them, such as amazonaws.com above s3.amazonaws.com."""
    ancestors = set()
    for rule in _rules():
        host = rule
        while host := host.partition(".")[2]:
            ancestors.add(host)
    return frozenset(ancestors)


def is_public_suffix(host: str) -> bool:
    """Whether anybody can register a name directly below a host, by a rule of ICANN's or a private one.

    Args:
        host: a lower-case host name in A-labels, already accepted by the grammar of entries.

    Returns:
        True for "co.uk", "github.io" and "kobe.jp" (below which every name is a public suffix); False for "acme.com".
    """
    if host in _wildcard_bases():
        return True
    # A host that no rule names is none (https://publicsuffix.org/list/, "Algorithm"), which spares most the 2.4 µs that
    # tldextract takes. The list has internationalised names in Unicode.
    if host not in _rules() and host.partition(".")[2] not in _wildcard_bases() and "xn--" not in host:
        return False
    return _extractor().extract_str(host).suffix == host


def is_shared_host(host: str) -> bool:
    """Whether strangers have hosts below this one, though the list does not call it a public suffix.

    Args:
        host: as for `is_public_suffix`.

    Returns:
        True for "amazonaws.com" (above the public suffix s3.amazonaws.com) and "zendesk.com"; False for "acme.com".
    """
    return host in _SHARED_HOSTS or host in _ancestors_of_suffixes()
