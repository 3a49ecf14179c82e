"""A perceptual hash: 64 bits of an image's coarse pattern, robust against re-encoding and resizing."""

from itertools import product

import cv2
import numpy as np

from mivolo_lite.audit.fingerprints import THUMBNAIL

BITS = 64
_CHUNK = 8192
_MEDIAN_OF = 16384
_FEW = 500
_FREQUENCIES = 11

# the 64 lowest frequencies without the constant one, which is the brightness
_PLACES = sorted(product(range(_FREQUENCIES), repeat=2), key=lambda place: (sum(place), max(place), place))
_ROWS, _COLUMNS = np.array(_PLACES[1 : BITS + 1]).T


def _packed(bits: np.ndarray) -> np.ndarray:
    """(N, 64) bool as (N,) uint64."""
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]


MIRROR = _packed((_COLUMNS % 2 == 1)[None])[0]
"""Mirroring an image flips these bits of its hash, since odd cosines change their sign."""


def perceptual_hashes(thumbnails: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N,) uint64 hashes of the thumbnails (..., 32, 32) uint8 at ``rows`` (N,), in chunks.

    Each bit compares a coefficient of the cosine transform with its median over the data set. With the usual threshold
    of zero, many bits are equal for nearly all aligned faces: on UTKFace, ten times as many pairs had a distance of 9
    or less, with the same true ones.
    """
    thresholds = _thresholds(thumbnails, rows)
    hashes = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        hashes[chunk] = _packed(_coefficients(thumbnails[rows[chunk]]) > thresholds)
    return hashes


def _thresholds(thumbnails: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(64,) medians over some of the images; zero for coefficients that mirroring negates, and for few images."""
    if len(rows) < _FEW:  # medians of few images may separate copies
        return np.zeros(BITS, np.float32)
    subset = rows[:: -(-len(rows) // _MEDIAN_OF)]
    return np.where(_COLUMNS % 2, 0, np.median(_coefficients(thumbnails[subset]), axis=0))


def _coefficients(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 64) float32 coefficients of the cosine transform, normalised for contrast."""
    basis = cv2.dct(np.eye(THUMBNAIL, dtype=np.float32), flags=cv2.DCT_ROWS).T[:_FREQUENCIES]
    transformed = np.einsum("ui,nij,vj->nuv", basis, standardised(thumbnails), basis, optimize=True)
    return transformed[:, _ROWS, _COLUMNS]


def standardised(thumbnails: np.ndarray) -> np.ndarray:
    """(N, H, W) float32 with mean 0 and norm 1 each, so that the sum of a product is the correlation."""
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=(1, 2), keepdims=True)
    return values / np.maximum(np.sqrt((values**2).sum(axis=(1, 2), keepdims=True)), 1e-6)
