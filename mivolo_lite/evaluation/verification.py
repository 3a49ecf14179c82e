"""Face verification: whether two images show the same person, by the cosine of their embeddings.

The accuracy follows the protocol of Labeled Faces in the Wild (Huang et al., 2007): over ten folds, each with the
threshold that is best on the other nine. The pairs are sampled; unlike in LFW, a person may be in several folds.
"""

from typing import NamedTuple

import numpy as np

MAX_PAIRS, MIN_PAIRS = 100_000, 30
"""Most pairs of each kind, and fewest for a figure."""

FOLDS = 10

FARS = (1e-2, 1e-3)

_FALSE_ACCEPTS = 10
"""Fewest expected false accepts at a reported rate: with fewer, its standard error is more than a third."""

_POINTS = 60
"""Of the curve."""

_CHUNK = 8192


class Pairs(NamedTuple):
    """Rows of both samples of each pair, (n,) int64, and whether they are of one person, (n,) bool: half of the
    pairs."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def verification(embedding: np.ndarray, person: np.ndarray, seed: int = 0) -> dict | None:
    """Verification accuracy, ROC and AUC of the cosines of embeddings.

    Args:
        embedding: (N, E), NaN where there is none.
        person: (N,) number of the person, NaN where unknown.
        seed: of the sampling of the pairs and their ten parts.

    Returns:
        ``pairs`` of both types together, ``people``, ``accuracy`` (0.5 is chance) with its standard deviation over the
        folds ``spread``, the ``threshold`` that is best on all pairs, ``auc``, ``tar`` (share of true pairs accepted)
        by false accept rate, None where there are too few pairs, and ``roc``, pairs of a false and a true accept rate.
        None for fewer than 30 pairs of a kind.
    """
    rows = np.flatnonzero(~np.isnan(person) & ~np.isnan(embedding).any(axis=1))
    rng = np.random.default_rng(seed)
    pairs = sample_pairs(person[rows], MAX_PAIRS, rng)
    count = len(pairs.same) // 2
    if count < MIN_PAIRS:
        return None
    cosine = cosines(embedding[rows], pairs)
    accuracies = fold_accuracies(cosine, pairs.same, rng)
    far, tar = roc(cosine, pairs.same)
    return {
        "pairs": len(pairs.same),
        "people": len(np.unique(person[rows])),
        "accuracy": float(accuracies.mean()),
        "spread": float(accuracies.std()),
        "threshold": best_threshold(cosine, pairs.same),
        "auc": float(np.trapezoid(tar, far)),
        "tar": {f"{rate:g}": tar_at(rate, far, tar) if rate * count >= _FALSE_ACCEPTS else None for rate in FARS},
        "roc": [[float(rate), tar_at(rate, far, tar)] for rate in np.geomspace(1 / count, 1, _POINTS)],
    }


def sample_pairs(person: np.ndarray, max_pairs: int, rng: np.random.Generator) -> Pairs:
    """All genuine pairs of (N,) people, or a random ``max_pairs`` of them, and as many impostor pairs, without
    repetition."""
    order = np.argsort(person, kind="stable")
    position = np.arange(len(person))
    begin = np.searchsorted(person[order], person[order])  # of the person at each position
    same_count, different_count = position - begin, begin  # earlier positions of the same person, and of others
    count = min(int(same_count.sum()), int(different_count.sum()), max_pairs)
    pair_types = [
        _sample_kind(same_count, begin, count, rng),
        _sample_kind(different_count, np.zeros_like(begin), count, rng),
    ]
    first, second = (order[np.concatenate(places)] for places in zip(*pair_types, strict=True))
    return Pairs(first, second, np.arange(2 * count) < count)


def _sample_kind(
    partners: np.ndarray, begin: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` different pairs of positions; the ``partners`` possible partners of each start at ``begin``."""
    end = np.cumsum(partners)
    total = int(end[-1]) if len(end) else 0
    pair = np.sort(rng.choice(total, count, replace=False))
    second = np.searchsorted(end, pair, side="right")
    return begin[second] + pair - (end - partners)[second], second


def cosines(embedding: np.ndarray, pairs: Pairs) -> np.ndarray:
    """(n,) float64 cosines, in chunks, since both embeddings of each pair are copied."""
    length = np.linalg.norm(embedding, axis=1)
    values = np.empty(len(pairs.same))
    for begin in range(0, len(values), _CHUNK):
        chunk = slice(begin, begin + _CHUNK)
        first, second = pairs.first[chunk], pairs.second[chunk]
        product = np.einsum("ne,ne->n", embedding[first], embedding[second], dtype=np.float64)
        values[chunk] = product / np.maximum(length[first] * length[second], np.finfo(np.float32).tiny)
    return values


def fold_accuracies(cosine: np.ndarray, same: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(FOLDS,) accuracy of each fold, with the threshold that is best on the others."""
    fold = np.empty(len(same), dtype=np.int64)
    for kind in (same, ~same):  # equally many of each kind in every fold
        fold[kind] = rng.permutation(int(kind.sum())) % FOLDS
    thresholds = [best_threshold(cosine[fold != held_out], same[fold != held_out]) for held_out in range(FOLDS)]
    is_correct = (cosine > np.array(thresholds)[fold]) == same
    return np.bincount(fold, is_correct) / np.bincount(fold)


def best_threshold(cosine: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the highest accuracy on (n,) cosines: midway between two of them, or beyond all."""
    accepted, (true, false) = _accepted(cosine, same)
    best = int(np.argmax(true - false))
    limits = np.concatenate([[np.inf], accepted, [-np.inf]])
    ends = limits[best], limits[best + 1]
    if np.isinf(ends).any():
        return float(ends[1] + 1 if best == 0 else ends[0] - 1)
    return float(np.mean(ends))


def roc(cosine: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates, (t,) each, from 0 to 1, at every distinct threshold."""
    _, (true, false) = _accepted(cosine, same)
    return false / false[-1], true / true[-1]


def tar_at(rate: float, far: np.ndarray, tar: np.ndarray) -> float:
    """The largest true accept rate ``tar`` (t,) whose false accept rate ``far`` (t,) is not above ``rate``."""
    return float(tar[np.searchsorted(far, rate, side="right") - 1])


def _accepted(cosine: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct cosines, falling, and (2, 1 + n) numbers of genuine and impostor pairs accepted from each one on."""
    values, inverse = np.unique(-cosine, return_inverse=True)
    counts = np.stack([np.bincount(inverse, kind, len(values)) for kind in (same, ~same)])
    return -values, np.concatenate([np.zeros((2, 1)), counts.cumsum(axis=1)], axis=1)
