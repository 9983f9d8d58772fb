"""Public suffixes, and other hosts whose subdomains have different owners.

The list is the copy of the Public Suffix List that tldextract bundles, without network or disk cache. It is read when the
first wildcard is compiled. What runs in an event loop has it read in a thread before that.

This is the only importer of tldextract, and imports it only where that copy is not found: with requests, and the trees in
which it looks hosts up, it takes 12 MB.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from importlib.util import find_spec, module_from_spec
from threading import Lock
from typing import Final, NamedTuple

__all__ = ("has_public_suffixes", "is_public_suffix", "is_shared_host", "load_public_suffixes")

_LOADING: Final = Lock()
_PATIENCE: Final = 2.0  # seconds for which a thread leaves the loading to another one

# Rules of each kind. If one is missing, the bundled copy is not where or what it was.
_EXPECTED = frozenset({"com", "*.ck", "!www.ck", "xn--p1ai", "github.io"})

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
    try:
        rules = frozenset(map(_in_a_labels, _bundled_rules()))
    except UnicodeDecodeError:  # it is damaged, and a rule that is lost would allow wildcards
        rules = frozenset()
    if not rules >= _EXPECTED:
        rules = frozenset(map(_in_a_labels, _rules_of_tldextract()))
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


def _bundled_rules() -> Iterator[str]:
    """Read the rules in the copy that tldextract bundles."""
    spec = find_spec("tldextract")
    copy = None if spec is None else files(module_from_spec(spec)) / ".tld_set_snapshot"
    if copy is not None and copy.is_file():
        with copy.open(encoding="utf-8") as lines:
            yield from (line.split()[0] for line in lines if not line.isspace() and not line.startswith("//"))


def _rules_of_tldextract() -> Iterable[str]:
    from tldextract import TLDExtract  # noqa: PLC0415 - the module's docstring says why it is not imported above

    return TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True).tlds


def _in_a_labels(rule: str) -> str:
    if rule.isascii():
        return rule
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in rule.split("."))


def has_public_suffixes() -> bool:
    """Whether the list is loaded."""
    return _suffixes.cache_info().currsize > 0


def load_public_suffixes() -> None:
    """Load the list, unless it is loaded. This takes 20 ms.

    Of several threads, one loads it: each would take 2 MB.
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
