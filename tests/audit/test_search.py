"""The banded search against the comparison of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivolo_lite.audit.duplicates import candidates
from mivolo_lite.audit.hashing import MIRROR
from mivolo_lite.audit.search import NearPairs


def clustered(seed: int, count: int, flips: int) -> np.ndarray:
    """Hashes of which many differ from another one in up to ``flips`` bits."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for place in range(1, count, 2):
        bits = rng.choice(64, rng.integers(0, flips + 1), replace=False)
        hashes[place] = hashes[place - 1] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=0)
    return hashes


def all_near(hashes: np.ndarray, others: np.ndarray, distance: int) -> set[tuple[int, int]]:
    one, other = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[one] ^ others[other]) <= distance
    return set(zip(one[near].tolist(), other[near].tolist(), strict=True))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 120), distance=st.integers(0, 12), flips=st.integers(0, 20))
def test_every_near_pair_is_found_exactly_once(seed, count, distance, flips):
    hashes = np.unique(clustered(seed, count, flips))
    np.random.default_rng(seed).shuffle(hashes)
    found = [tuple(pair) for table in NearPairs(hashes, distance) for pair in table.tolist()]
    assert len(found) == len(set(found)) and set(found) == all_near(hashes, hashes, distance)


@pytest.mark.parametrize("distance", [0, 3, 8])
def test_hashes_that_agree_in_most_bits_are_searched_as_well(distance):
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**64, 500, dtype=np.uint64) & np.uint64(0x00FF00FF0000F0F))
    search = NearPairs(hashes, distance)
    tables = list(search)
    found = [tuple(pair) for table in tables for pair in table.tolist()]
    assert len(tables) == len(search)
    assert len(found) == len(set(found)) and set(found) == all_near(hashes, hashes, distance)


def test_more_hashes_are_sorted_by_more_bits():
    few, many = (NearPairs(np.arange(count, dtype=np.uint64), 9).chosen for count in (1000, 1_000_000))
    assert few < many
    masks = NearPairs(np.arange(1000, dtype=np.uint64), 9).masks
    assert sum(masks) == 2**64 - 1 and all(one & other == 0 for one, other in zip(masks, masks[1:], strict=False))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), distance=st.integers(0, 10))
def test_candidates_are_the_plain_and_the_mirrored_pairs(seed, count, distance):
    rng = np.random.default_rng(seed)
    hashes = clustered(seed, count, 12)
    hashes[rng.random(count) < 0.3] ^= MIRROR
    hashes[rng.permutation(count)[:12]] = 77  # a dozen of one hash
    found = [
        (one, other, mirrored)
        for part in candidates(hashes, distance)
        for one, other, mirrored in zip(*(column.tolist() for column in part), strict=True)
    ]
    expected = {(*pair, False) for pair in all_near(hashes, hashes, distance)}
    expected |= {(*pair, True) for pair in all_near(hashes, hashes ^ MIRROR, distance)}
    assert len(found) == len(set(found)) and set(found) == expected


def test_a_thousand_images_of_one_hash_are_connected_but_not_all_compared():
    hashes = np.full(1000, 77, np.uint64)
    (one, other, mirrored), *rest = candidates(hashes, 0)
    assert not sum(len(part[0]) for part in rest) and not mirrored.any()
    assert len(one) < 20_000 and set(zip(range(999), range(1, 1000), strict=True)) <= set(
        zip(one.tolist(), other.tolist(), strict=True)
    )
