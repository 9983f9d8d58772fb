"""Public suffixes, and other hosts whose subdomains have different owners.

The only importer of tldextract, which here reads its bundled copy of the Public Suffix List, without network or disk cache.
tldextract is imported when the first wildcard is compiled, because its import takes longer than the rest of the package.
What runs in an event loop has it loaded in a thread before that.
"""

from functools import cache
from threading import Lock
from typing import Final, NamedTuple

from gatekeeper.matching.idn import to_a_labels

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


class _Suffixes(NamedTuple):
    """What the list says, in A-labels.

    Attributes:
        rules: its rules.
        wildcard_bases: hosts whose direct subdomains are all public suffixes: kobe.jp for *.kobe.jp.
        ancestors: parent domains of public suffixes, such as amazonaws.com of s3.amazonaws.com.
    """

    rules: frozenset[str]
    wildcard_bases: frozenset[str]
    ancestors: frozenset[str]


@cache
def _suffixes() -> _Suffixes:
    from tldextract import TLDExtract  # noqa: PLC0415 - the module's docstring says why it is not imported above

    # Only the rules are kept: the trees in which tldextract looks hosts up take 5 MB.
    extract = TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)
    rules = frozenset(map(to_a_labels, extract.tlds))
    del extract  # before more is made, which then takes its place
    ancestors = set()
    for rule in rules:
        host = rule
        while host := host.partition(".")[2]:
            ancestors.add(host)
    return _Suffixes(
        rules=rules,
        wildcard_bases=frozenset(rule[2:] for rule in rules if rule.startswith("*.")),
        ancestors=frozenset(ancestors),
    )


def has_public_suffixes() -> bool:
    """Whether the list is loaded."""
    return _suffixes.cache_info().currsize > 0


def load_public_suffixes() -> None:
    """Load the list, unless it is loaded. This takes 0.1 to 0.3 s.

    Of several threads, one loads it: each would take 6 MB meanwhile.
    """
    # A fork can leave the lock held for good.
    is_first = _LOADING.acquire(timeout=_PATIENCE)
    try:
        _suffixes()
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
    suffixes = _suffixes()
    if host in suffixes.rules or host in suffixes.wildcard_bases:
        return True
    return host.partition(".")[2] in suffixes.wildcard_bases and f"!{host}" not in suffixes.rules


def is_shared_host(host: str) -> bool:
    """Whether subdomains have different owners, though it is no public suffix.

    Args:
        host: as for `is_public_suffix`.

    Returns:
        True for "amazonaws.com" (above the public suffix s3.amazonaws.com) and "zendesk.com"; False for "acme.com".
    """
    return host in _SHARED_HOSTS or host in _suffixes().ancestors
