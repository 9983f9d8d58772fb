"""Strategies for entries and origins, as owners and as attackers write them.

The pool of hosts is small, so that entries and origins often match.
"""

from hypothesis import strategies as st

LABEL_63 = "a" * 63
NAME_253 = ".".join([LABEL_63, LABEL_63, LABEL_63, "b" * 61])
BASE_251 = NAME_253[2:]
LONGEST_ORIGIN = 267

NAMES = [
    "acme.com",
    "shop.acme.com",
    "a.b.acme.com",
    "a.b.c.d.e.f.g.h.acme.com",
    "evilacme.com",
    "acme.com.evil.test",
    "acme.co",
    "localhost",
    "foo.localhost",
    "localhost.evil.test",
    "intranet",
    "null",
    "com",
    "co.uk",
    "acme.co.uk",
    "github.io",
    "alice.github.io",
    "x.alice.github.io",
    "vercel.app",
    "foo.ck",
    "shop.foo.ck",
    "_dmarc.acme.com",
    "my_shop.acme.com",
    "_",
    "ab--cd.acme.com",
    "-acme.com",
    "acme-.com",
    "shop.-acme.com",
    "1.acme.com",
    "0x7f.acme.com",
    "acme.0x7g",
    f"{LABEL_63}.acme.com",
    NAME_253,
    BASE_251,
]
BAD_NAMES = [
    "",
    ".",
    "acme.com.",
    "acme.com..",
    "shop.acme.com.",
    ".acme.com",
    "shop..acme.com",
    "acme.com,shop.acme.com",
    "acme.com shop.acme.com",
    "acme%2ecom",
    "shop%2eacme.com",
    "acme.com%00.evil.test",
    "acme.com@evil.test",
    "user:pw@acme.com",
    "acme.com\\.evil.test",
    "acme.com/.evil.test",
    "acme.com?.acme.com",
    "acme.com#.acme.com",
    "acme\x00.com",
    "ac\tme.com",
    "ac\nme.com",
    "acme.com\n",
    "acme.com;",
    "<acme.com>",
    "acme.com\x7f",
    f"a{LABEL_63}.acme.com",
    f"c{NAME_253}",
    f"a.{NAME_253}",
]
STARRED = [
    "*",
    "**",
    "*.",
    "*.*",
    "*.*.acme.com",
    "**.acme.com",
    "*acme.com",
    "*shop.acme.com",
    "s*.acme.com",
    "shop.*.com",
    "acme.*",
    "acme.com*",
    ".*.acme.com",
    "*..acme.com",
    "*.acme.com.",
    "*.127.0.0.1",
    "*.[::1]",
    f"*.{NAME_253}",
    f"*.a{BASE_251}",
]
IPV4 = ["127.0.0.1", "192.168.0.10", "0.0.0.0", "255.255.255.255"]
ODD_IPV4 = [
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "2130706433",
    "0x7f000001",
    "127.0.0.01",
    "127.0.0.256",
    "127.0.0.1.",
    "127.0.0.1.5",
    "127.0.0.0x1",
    "127.0.0.0x",
    "acme.1",
    "acme.0x7f",
    "acme.com.127",
]
IPV6 = ["[::1]", "[::]", "[2001:db8::1]", "[2001:db8:0:1::]", "[1:0:2:3:4:5:6:7]", "[::102:304]", "[1::2:0:0:3:4]"]
ODD_IPV6 = [
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0:1]",
    "[2001:DB8::1]",
    "[2001:0db8::1]",
    "[2001:db8:0:1:0:0:0:0]",
    "[1::2:3:4:5:6:7]",
    "[1:0:0:2::3:4]",
    "[::1.2.3.4]",
    "[::ffff:1.2.3.4]",
    "[::ffff:102:304]",
    "[::ffff:0:1]",
    "[fe80::1%eth0]",
    "[fe80::1%25eth0]",
    "[:::1]",
    "[1::2::3]",
    "[1:2:3:4:5:6:7]",
    "[1:2:3:4:5:6:7:8:9]",
    "[1:2:3:4::5:6:7:8]",
    "[00001::]",
    "[g::1]",
    "[]",
    "[::1",
    "::1",
    "::1]",
    "[[::1]]",
    "[127.0.0.1]",
    "[acme.com]",
    "[v1.acme]",
    "[1.2.3.4::]",
    "[::1.2.3.04]",
    "[::1]acme.com",
    "acme.com[::1]",
]
LOOK_ALIKES = ["аcme.com", "shop.аcme.com", "acmе.com", "асме.com", "acme.сom", "ɑcme.com", "acme.cοm", "acmé.com"]
UNICODE_NAMES = [
    *LOOK_ALIKES,
    "bücher.example",
    "*.bücher.example",
    "faß.example",
    "例え.テスト",
    "ａcme.com",
    "acme。com",
    "acme.com\u200b",
    "acme.com\u00a0",
    "\u202eacme.com",
    "acme.com\ud800",
    "١.acme.com",
    "acme.١",
    "xn--bcher-kva.example",
    "xn--a.example",
    "xn--.example",
    "xn--acme-.com",
    "*.xn--p1ai",
    "K.example",
    "ü" * 64 + ".example",
]

GOOD_PORTS = ["", ":3000", ":8443", ":1", ":65535", ":80", ":443"]
BAD_PORTS = [":", ":0", ":65536", ":080", ":0443", ":00", ":-1", ":+80", ":8443x", ":8443.evil.test", ":80:80", ":8 0"]
BAD_PORTS += [":**", ":*0", ":8*", ":*.evil.test", "*", ":99999999999999999999", ":1_0", ":0x50", ":٣٠٠٠"]
WEB_SCHEMES = ["", "http://", "https://"]
APP_SCHEMES = ["capacitor://", "chrome-extension://", "x+y-z.9://"]
GOOD_SCHEMES = [*WEB_SCHEMES, *WEB_SCHEMES, *APP_SCHEMES]
BAD_SCHEMES = [
    "ws://",
    "wss://",
    "file://",
    "ftp://",
    "null://",
    "//",
    "://",
    "https:",
    "https:/",
    "*://",
    "x_y://",
    "9x://",
]
BAD_SCHEMES += ["http*://", "https:///", "https:\\\\", "httpss://", " https://", "https ://", "javascript:"]
TAILS = ["", "/", "//", "/path", "?q", "#f", "\\", " ", "\t", "/ ", " /", "\n", "\r\n", "\x00", "\x0b", "\u00a0", ","]
HEADS = ["", " ", "\t ", "\n", "\x00", "\ufeff", "user@", ".", "/"]
NOISE = ["*", ".", "-", "_", ":", "/", "\\", "@", "%", "#", "?", "[", "]", ",", " ", "\t", "\n", "\x00", "x", "0", "А"]

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
ANY_BYTES = st.binary(max_size=60)
PATH_TAILS = ["", "/", "/page", "/a@b:1", "/?q=https://evil.test", "?q", "#f", "\\", "\\@evil.test", "//evil.test"]


def _mostly(good: list[str], bad: list[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(good), st.sampled_from(good), st.sampled_from(good), st.sampled_from(good + bad))


def _noisy(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(_put_in, text, st.sampled_from(NOISE), st.floats(0, 1))


def _put_in(text: str, noise: str, where: float) -> str:
    position = round(where * len(text))
    return text[:position] + noise + text[position:]


def _some_upper(text: str, upper: str) -> str:
    return {"all": text.upper(), "title": text.title(), "none": text}[upper]


def hosts() -> st.SearchStrategy[str]:
    """Draw a host in its canonical spelling."""
    return st.one_of(st.sampled_from(NAMES[:12]), st.sampled_from(NAMES + IPV4 + IPV6))


def entries() -> st.SearchStrategy[str]:
    """Draw an entry, plain more often than not. Any of its parts may be wrong."""
    wildcards = [f"*.{name}" for name in NAMES + IPV4 + IPV6]
    host = st.one_of(
        hosts(),
        st.sampled_from(wildcards[:12]),
        st.sampled_from(wildcards),
        st.sampled_from(BAD_NAMES + STARRED + ODD_IPV4 + ODD_IPV6),
    )
    plain = st.builds(
        "".join,
        st.tuples(_mostly(GOOD_SCHEMES, BAD_SCHEMES), host, _mostly([*GOOD_PORTS, "", ":*", ":*"], BAD_PORTS)),
    )
    cased = st.builds(_some_upper, plain, st.sampled_from(["none", "none", "all", "title"]))
    wrapped = st.builds("".join, st.tuples(st.sampled_from(HEADS), cased, st.sampled_from(TAILS)))
    words = st.sampled_from(["null", "NULL", "*", "", " ", "/", "*:*", "https://*", "https://", "acme.com" * 150])
    return st.one_of(plain, plain, plain, cased, wrapped, _noisy(plain), words)


def ascii_entries() -> st.SearchStrategy[str]:
    """Draw an entry that the oracle understands: ASCII, without Punycode."""
    return entries().filter(lambda entry: entry.isascii() and "xn--" not in entry.lower())


def any_entries() -> st.SearchStrategy[str]:
    """Draw any entry, including Unicode names, Punycode and arbitrary text."""
    names = st.builds(
        "".join,
        st.tuples(_mostly(GOOD_SCHEMES, BAD_SCHEMES), st.sampled_from(UNICODE_NAMES), _mostly(GOOD_PORTS, BAD_PORTS)),
    )
    return st.one_of(entries(), names, ANY_TEXT)


def origins() -> st.SearchStrategy[str]:
    """Draw an Origin header, well formed more often than not."""
    host = st.one_of(
        hosts(),
        hosts(),
        hosts(),
        st.sampled_from(BAD_NAMES + STARRED + ODD_IPV4 + ODD_IPV6 + UNICODE_NAMES),
    )
    good = [scheme for scheme in GOOD_SCHEMES if scheme]
    scheme = _mostly(good, ["", *BAD_SCHEMES, "HTTP://", "Https://", "Capacitor://"])
    plain = st.builds("".join, st.tuples(scheme, host, _mostly(["", *GOOD_PORTS], [":*", *BAD_PORTS])))
    wrapped = st.builds("".join, st.tuples(st.sampled_from(HEADS), plain, st.sampled_from(TAILS)))
    return st.one_of(plain, plain, plain, plain, wrapped, _noisy(plain), st.sampled_from(["null", "", "https://"]))


def web_origins() -> st.SearchStrategy[str]:
    """Draw a serialised origin of a web page."""
    return _origins_at({"http://": ["", ":443", ":3000", ":65535"], "https://": ["", ":80", ":8443", ":1"]})


def app_origins() -> st.SearchStrategy[str]:
    """Draw a serialised origin of an app or an extension."""
    return _origins_at({scheme: ["", "", ":80", ":443", ":3000"] for scheme in APP_SCHEMES}).filter(
        lambda origin: len(origin) <= LONGEST_ORIGIN
    )


def good_origins() -> st.SearchStrategy[str]:
    """Draw a serialised origin, more often of a web page."""
    return st.one_of(web_origins(), web_origins(), app_origins())


def _origins_at(ports: dict[str, list[str]]) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(ports)).flatmap(
        lambda scheme: st.builds("".join, st.tuples(st.just(scheme), hosts(), st.sampled_from(ports[scheme]))),
    )


def entries_for(origin: str) -> st.SearchStrategy[str]:
    """Draw an entry written for this origin. It is valid unless its host forbids a wildcard."""
    scheme, rest = origin.split("://")
    host, colon, port = rest, "", ""
    if not rest.endswith("]"):
        host, colon, port = rest.rpartition(":") if ":" in rest else (rest, "", "")
    spellings = [origin, rest, f"{host}:*", f"{scheme}://{host}:*", f" {origin.upper()}/\t"]
    labels = host.split(".")
    for depth in range(1, len(labels)):
        base = ".".join(labels[depth:])
        spellings += [f"*.{base}{colon}{port}", f"*.{base}:*", f"{scheme}://*.{base}{colon}{port}"]
    return st.sampled_from(spellings)


def neighbours(origin: str) -> list[str]:
    """List variations of an origin.

    They change a byte, the host, the port, the scheme or the spelling, or glue a name on.
    """
    scheme, rest = origin.split("://")
    other = {"http": "https", "https": "http"}.get(scheme, "https")
    one_less = [origin[:position] + origin[position + 1 :] for position in range(len(origin))]
    one_more = [_put_in(origin, noise, where) for noise in NOISE for where in (0, 0.4, 0.5, 0.8, 1)]
    glued = [f"{scheme}://{prefix}{rest}" for prefix in ("evil", "x.", "a.b.", ".", "*.", "user@", "a/", "_", "-")]
    glued += [origin + suffix for suffix in (".", "..", ".evil.test", "evil", "/", "/path", "@evil.test", "%00", "%2e")]
    ports = [origin + port for port in (":80", ":443", ":8443", ":3000", ":", ":0", ":*", ":65536", ":080", "0", "1")]
    respelled = [f"{other}://{rest}", origin.upper(), origin.title(), f"{scheme}://{rest.upper()}", rest, f"//{rest}"]
    encoded = [origin.replace(".", dot) for dot in ("%2e", "%2E", "。", ",", "", "..")]
    dots = [position for position, byte in enumerate(origin) if byte == "."]
    encoded += [origin[:dot] + glue + origin[dot + 1 :] for dot in dots for glue in ("-", "evil", "x", "%2e", "..")]
    parent = [f"{scheme}://{rest.partition('.')[2]}", f"ws://{rest}", f"{scheme}:/{rest}", f"{origin},{origin}"]
    parent += [f"capacitor://{rest}", f"{scheme}s://{rest}", f"x{scheme}://{rest}", f"{scheme}_://{rest}"]
    return [*one_less, *one_more, *glued, *ports, *respelled, *encoded, *parent]
