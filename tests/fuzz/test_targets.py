"""The fuzzing targets hold for their seeds and for mutations by Hypothesis; long runs: `python -m tests.fuzz`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .targets import SEEDS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_target_holds_for_seeds_with_a_piece_replaced_by_any_bytes(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS[name]))
    begin = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(begin, len(seed)))
    TARGETS[name](seed[:begin] + data.draw(st.binary(max_size=40)) + seed[end:])
