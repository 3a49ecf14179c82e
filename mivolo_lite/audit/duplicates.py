"""Finds duplicate images: the same bytes, the same pixels, or the same photograph."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from mivolo_lite.audit.compare import similarities, thumbnails_alike
from mivolo_lite.audit.fingerprints import Fingerprints
from mivolo_lite.audit.hashing import MIRROR, perceptual_hashes
from mivolo_lite.audit.quality import BLANK_CONTRAST
from mivolo_lite.audit.samples import Samples
from mivolo_lite.audit.search import NearPairs
from mivolo_lite.audit.workers import Map

COPY_TYPES = ("bytes", "pixels", "near", "mirrored")
_BYTES, _PIXELS, _NEAR, _MIRRORED = range(len(COPY_TYPES))

PAIR = np.dtype(
    [
        ("first", np.int64),  # samples, the smaller number first
        ("second", np.int64),
        ("kind", np.uint8),  # of COPY_TYPES
        ("distance", np.uint8),  # bits of the perceptual hash
        ("similarity", np.float32),
    ]
)

_OF_ONE_HASH = 16
"""Number of images of the same hash that each is compared with; larger groups are still connected as a chain."""

_PAIRS_PER_TASK = 64


def find_pairs(
    samples: Samples, image: str, prints: Fingerprints, map_tasks: Map, distance: int, similarity: float
) -> np.ndarray:
    """(K,) of ``PAIR``: links between copies, enough to connect all copies of an image.

    Args:
        samples: of the images.
        image: ``face`` or ``body``.
        prints: of these images.
        map_tasks: maps tasks over processes that read the images.
        distance: largest Hamming distance of the hashes of two copies.
        similarity: smallest correlation of their fine patterns.
    """
    records = prints.records
    # without blank ones, which other tools write for a missing image
    readable = np.flatnonzero(records["readable"] & (records["contrast"] >= BLANK_CONTRAST))
    by_bytes = _equal(records["bytes"], readable)
    by_pixels = _equal(records["pixels"], _without(readable, by_bytes))
    exact = [
        _pairs(records["sample"][links], kind, 0, 1.0) for kind, links in ((_BYTES, by_bytes), (_PIXELS, by_pixels))
    ]
    near = _near_pairs(prints, _without(_without(readable, by_bytes), by_pixels), distance)
    near["similarity"] = _similarities(samples, image, near, map_tasks)
    return np.concatenate([*exact, _best_of_a_pair(near[near["similarity"] >= similarity])])


def _equal(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(K, 2) pairs of the first row of each value and each later row of the same value."""
    _, first, inverse = np.unique(values[rows], return_index=True, return_inverse=True)
    links = np.stack([rows[first[inverse]], rows], axis=1)
    return links[links[:, 0] != links[:, 1]]


def _without(rows: np.ndarray, links: np.ndarray) -> np.ndarray:
    return np.setdiff1d(rows, links[:, 1], assume_unique=True)


def _pairs(ends: np.ndarray, kind: ArrayLike, distance: ArrayLike, similarity: ArrayLike) -> np.ndarray:
    pairs = np.zeros(len(ends), PAIR)
    pairs["first"] = ends.min(axis=1, initial=np.iinfo(np.int64).max)
    pairs["second"] = ends.max(axis=1, initial=-1)
    pairs["kind"], pairs["distance"], pairs["similarity"] = kind, distance, similarity
    return pairs


def _near_pairs(prints: Fingerprints, rows: np.ndarray, distance: int) -> np.ndarray:
    """(K,) of ``PAIR``, without similarity: rows with near hashes and correlated thumbnails."""
    hashes = perceptual_hashes(prints.thumbnails, rows)
    chunks = [np.zeros((0, 3), np.int64)]
    for first, second, mirrored in candidates(hashes, distance):
        for is_alike in thumbnails_alike(prints.thumbnails, rows[first], rows[second], mirrored):
            size = len(is_alike)
            chunks.append(np.stack([column[:size][is_alike] for column in (first, second, mirrored)], axis=1))
            first, second, mirrored = first[size:], second[size:], mirrored[size:]
    alike = np.concatenate(chunks)
    first, second, mirrored = alike[:, 0], alike[:, 1], alike[:, 2] > 0
    distances = np.bitwise_count(hashes[first] ^ hashes[second] ^ np.where(mirrored, MIRROR, np.uint64(0)))
    sample_pairs = prints.records["sample"][rows[alike[:, :2]]]
    return _pairs(sample_pairs, np.where(mirrored, _MIRRORED, _NEAR), distances, np.nan)


def candidates(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """In chunks, (n,) each: rows ``first < second`` of near hashes, and whether the second is mirrored.

    Args:
        hashes: (N,) uint64.
        distance: largest Hamming distance.
    """
    views = np.concatenate([hashes, hashes ^ MIRROR])
    order = np.argsort(views)
    values, starts, counts = np.unique(views[order], return_index=True, return_counts=True)
    search = NearPairs(values, distance)
    repeated = np.flatnonzero(counts > 1)
    yield _meetings(_within(starts[repeated], counts[repeated]), order, len(hashes))
    counts = np.minimum(counts, _OF_ONE_HASH)
    for near in tqdm(search, desc="near copies", unit=" tables", disable=None):
        yield _meetings(_across(near, starts, counts), order, len(hashes))


def _within(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(K, 2) indices into the sorted views: each with the next few of the same hash."""
    ranges = [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
    return np.concatenate(
        [
            np.zeros((0, 2), np.int64),
            *(
                np.stack([places[:-shift], places[shift:]], axis=1)
                for places in ranges
                for shift in range(1, min(len(places), _OF_ONE_HASH + 1))
            ),
        ]
    )


def _across(near: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(K, 2) indices into the sorted views: all views of one hash with all of the other."""
    left, right = near[:, 0], near[:, 1]
    meetings = counts[left] * counts[right]
    pair = np.repeat(np.arange(len(near)), meetings)
    turn = np.arange(len(pair)) - np.repeat(np.cumsum(meetings) - meetings, meetings)
    left, right = left[pair], right[pair]
    return np.stack([starts[left] + turn // counts[right], starts[right] + turn % counts[right]], axis=1)


def _meetings(places: np.ndarray, order: np.ndarray, hashes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of views as pairs of images. Each pair, plain or mirrored, occurs twice, and is kept once."""
    views = order[places]
    mirrored = views >= hashes
    images = views % max(hashes, 1)
    across = mirrored[:, 0] != mirrored[:, 1]
    swapped = images[:, 0] > images[:, 1]
    images = np.where(swapped[:, None], images[:, ::-1], images)
    first_is_mirrored = np.where(swapped, mirrored[:, 1], mirrored[:, 0])
    counts = ~first_is_mirrored & (images[:, 0] != images[:, 1])
    return images[counts, 0], images[counts, 1], across[counts]


def _similarities(samples: Samples, image: str, near: np.ndarray, map_tasks: Map) -> np.ndarray:
    """(K,) similarity of pairs, (K,) of ``PAIR``."""
    order = np.lexsort((near["second"], near["first"]))  # pairs of one image are consecutive, so that it is read once
    pairs = [
        (samples.locate(first), samples.locate(second), kind == _MIRRORED)
        for first, second, kind in near[["first", "second", "kind"]][order].tolist()
    ]
    tasks = [(image, pairs[start : start + _PAIRS_PER_TASK]) for start in range(0, len(pairs), _PAIRS_PER_TASK)]
    scores = np.zeros(len(pairs), np.float32)
    bar = tqdm(total=len(pairs), desc="comparing", unit=" pairs", disable=None)
    with bar:
        done = 0
        for chunk in map_tasks(similarities, tasks):
            scores[order[done : done + len(chunk)]] = chunk
            done += len(chunk)
            bar.update(len(chunk))
    return scores


def _best_of_a_pair(pairs: np.ndarray) -> np.ndarray:
    """Keep the better match of a nearly symmetric image, which can match both plain and mirrored."""
    pairs = pairs[np.lexsort((-pairs["similarity"], pairs["second"], pairs["first"]))]
    again = (pairs["first"][1:] == pairs["first"][:-1]) & (pairs["second"][1:] == pairs["second"][:-1])
    return pairs[np.append(True, ~again)[: len(pairs)]]
