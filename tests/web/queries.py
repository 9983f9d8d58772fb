"""Query strings, valid and odd, for property tests."""

from hypothesis import strategies as st

__all__ = ("QUERIES",)

PIECES = ["client_key", "client%5fkey", "%63lient_key", "client+key", "CLIENT_KEY", "=", "==", "&", "&&", ";", "+", "%"]
PIECES += ["%2", "%zz", "%00", "%25", "%26", "%3d", "%2B", "%ff", "%c3%a9", "k", "pk_live_acme_x", "", " ", "#", "é"]
QUERIES = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(
        st.builds(
            "{}={}".format,
            st.sampled_from(PIECES[:4]),
            st.lists(st.sampled_from(PIECES[9:]), min_size=1, max_size=2).map("".join),
        ),
        min_size=1,
        max_size=3,
    ).map("&".join),
).map(lambda query: query.encode("latin-1"))
