"""Internationalised hosts as browsers send them.

That is UTS 46 without transitional mappings (https://unicode.org/reports/tr46/).
"""

from unicodedata import bidirectional

import idna

__all__ = ("JOINERS", "to_a_labels")

JOINERS = "\u200c\u200d"  # the zero-width non-joiner and joiner


def to_a_labels(host: str) -> str:
    """Convert a host as browsers do (URL standard 3.3, "domain to ASCII").

    Args:
        host: at most 253 characters, because IDNA is slow on hostile hosts (CVE-2024-3651, CVE-2026-45409).

    Returns:
        The host in A-labels and lower case.

    Raises:
        ValueError: if browsers cannot visit the host.
    """
    if host.isascii() and "xn--" not in host.lower():
        return host.lower()
    labels = [_to_unicode(label) for label in idna.uts46_remap(host, std3_rules=False).split(".")]
    _require_valid_labels(labels)
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)


def _to_unicode(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    decoded = label[4:].encode("ascii").decode("punycode")
    if decoded.isascii() or decoded.startswith("xn--") or decoded.encode("punycode").decode() != label[4:]:
        raise idna.IDNAError(f"{label!r} is not Punycode")
    if idna.uts46_remap(decoded, std3_rules=False) != decoded:
        raise idna.IDNAError(f"{label!r} decodes to a spelling that browsers map to another")
    return decoded


def _require_valid_labels(labels: list[str]) -> None:
    """Apply UTS 46 section 4.1, Validity Criteria, as browsers do.

    CheckBidi and CheckJoiners are on. idna.encode will not do: it applies IDNA 2008, which has no symbols, and there are
    sites at ☃.net and i❤.ws.
    """
    right_to_left = any(bidirectional(character) in {"R", "AL", "AN"} for character in "".join(labels))
    for label in labels:
        if not label.isascii():
            idna.check_nfc(label)
            idna.check_initial_combiner(label)
        if right_to_left and label:
            idna.check_bidi(label, check_ltr=True)
        for place, character in enumerate(label):
            if character in JOINERS and not idna.valid_contextj(label, place):
                raise idna.IDNAError(f"{label!r} has a joiner where none is allowed")
