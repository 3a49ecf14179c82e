"""Robustness: the MAE under ten corruptions at five strengths each.

It is summarised by the mean relative degradation: the mean over corruptions and strengths of

    MAE(corruption, strength) / MAE(clean) - 1,

where both MAEs are of the same samples. (ImageNet-C's mean corruption error divides by another model's errors instead,
Hendrycks and Dietterich, ICLR 2019.) Its limits:

* It is relative to the model's clean error: of two models with the same MAE on dark images, the one with the larger
clean MAE degrades less. Also compare the MAEs themselves between models.
* A model that always returns the same age has 0.
* The strengths were not measured on cameras: it compares the robustness of models, and does not predict errors of a
given camera.
* The corruptions are applied to crops at the model's resolution, so they do not affect the face detector. A body whose
face was blacked out in packing has none to cover.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.intervals import (
    Identity,
    as_pair,
    bootstrap_of_enough,
    cell_sums,
    counted,
    finite_or_none,
    means,
    select,
)
from mivolo_lite.evaluation.metrics import age_errors
from mivolo_lite.evaluation.predict import Evaluator, mask_unseen, raw_outputs
from mivolo_lite.images.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.sampler import EvalSampler
from mivolo_lite.loading.task_labels import identities
from mivolo_lite.loading.workers import BatchLoader
from mivolo_lite.randomness import permutation_of
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef

CELLS = tuple(product(CORRUPTIONS, range(SEVERITIES)))
VERSIONS = 1 + len(CELLS)
"""Versions of every sample: clean, and every corruption at every strength."""

_SEED = 0


class CorruptedDataset(ShardDataset):
    """Reads batches of all ``VERSIONS`` of each sample in a row, the clean one first.

    Each image is decoded and letterboxed once. The versions of an image take 23 ms of one CPU at 112 px and 86 ms at
    224 px, so a GPU waits for the workers.
    """

    index: ShardIndex

    def buffers(self, *count: int) -> dict[str, np.ndarray]:
        """Memory for all versions of the images of ``count`` samples."""
        return super().buffers(*count[:-1], count[-1] * VERSIONS)

    def arrays(
        self, refs: Sequence[SampleRef] | np.ndarray, ahead: Sequence[int], buffers: dict[str, np.ndarray]
    ) -> Batch:
        clean = super().arrays(refs, ahead, super().buffers(len(refs)))
        images = {name: self._versions(name, refs, getattr(clean, name), buffer) for name, buffer in buffers.items()}
        return replace(clean.repeat(VERSIONS), face=images.get("face"), body=images.get("body"))

    def _versions(self, name: str, refs: Sequence[SampleRef] | np.ndarray, clean: Images, buffer: np.ndarray) -> Images:
        count, squares = len(clean.rows), np.transpose(clean.pixels, (0, 2, 3, 1))
        versions = buffer[: count * VERSIONS].reshape(count, VERSIONS, *squares.shape[1:])
        versions[:, 0] = squares
        for image, row in enumerate(clean.rows.tolist()):
            sample = int(refs[row][1])
            face_region = self.to_cover(name, sample)
            for version, (kind, severity) in enumerate(CELLS, start=1):
                versions[image, version] = corrupt(squares[image], kind, severity, (_SEED, sample), face_region)
        rows = clean.rows[:, None] * VERSIONS + np.arange(VERSIONS)
        return Images(buffer[: count * VERSIONS].transpose(0, 3, 1, 2), rows.flatten())

    def to_cover(self, name: str, sample: int) -> str:
        """The region of a sample's image that contains the face, for ``corrupt``.

        Packing blacks out known faces in bodies. A body without a face crop may show a face without a box, at its top.
        """
        if name == "face":
            return "all"
        return "none" if self.index.columns["face_size"][sample] > 0 else "head"


class SubsetSampler(EvalSampler):
    """An ``EvalSampler`` of a subset of the samples."""

    def __init__(self, subset: np.ndarray, batch_size: int, rank: int, world_size: int):
        super().__init__(len(subset), batch_size, rank, world_size)
        self.subset = subset

    def __iter__(self) -> Iterator[list[SampleRef]]:
        for refs in super().__iter__():
            yield [ref._replace(sample=int(self.subset[ref.sample])) for ref in refs]


def choose(index: ShardIndex, inputs: Sequence[str], count: int | None) -> np.ndarray:
    """(count,) random samples with a known age and any of the inputs, sorted, and the same in every call.

    All of them if ``count`` is None or there are fewer. Raises UserError if there are none.
    """
    candidates = np.flatnonzero(index.has_image(inputs) & ~np.isnan(index.columns["age_lo"]))
    if not len(candidates):
        raise UserError(f"{index.folder}: no sample has both an age and a {' or '.join(inputs)}, as --robustness needs")
    return np.sort(permutation_of(candidates, _SEED)[:count])


@torch.inference_mode()
def measure_robustness(
    evaluator: Evaluator, samples: np.ndarray, batch: int, workers: int
) -> dict[str | None, dict | None]:
    """Run the estimator over all versions of the samples. Every rank gets the whole result.

    Args:
        evaluator: the model and the data.
        samples: numbers of the samples, from ``choose``.
        batch: largest number of images in a forward pass, which has all versions of a sample.
        workers: decoding processes.

    Returns:
        The results of ``degradation`` by the names of ``input_sets``.
    """
    estimator, index, input_sets = evaluator.estimator, evaluator.index, evaluator.input_sets
    dataset = CorruptedDataset(index, evaluator.inputs, estimator.card.image_size)
    ranks = evaluator.accelerator.process_index, evaluator.accelerator.num_processes
    loader = BatchLoader(dataset, SubsetSampler(samples, max(1, batch // VERSIONS), *ranks), workers)
    rows: dict[str | None, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in input_sets}
    for name, versions, output in raw_outputs(evaluator, loader, "corrupting"):
        (age,) = mask_unseen(versions.seen(input_sets[name]), estimator.estimate(output)[0].age)
        columns = (column[versions.valid].reshape(-1, VERSIONS) for column in (versions.sample, age))
        sample, estimate = (column.cpu().numpy() for column in columns)
        rows[name].append((sample, estimate))
    return {name: degradation(*_errors(gather_object(rows[name]), index)) for name in input_sets}


def _errors(rows: list[tuple[np.ndarray, np.ndarray]], index: ShardIndex) -> tuple[np.ndarray, np.ndarray]:
    """(N, VERSIONS) signed errors, and (N,) identities, in the order of the samples."""
    sample, age = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(sample[:, 0])
    truth = (index.columns[name][sample[order]].astype(np.float64) for name in ("age_lo", "age_hi"))
    return age_errors(age[order].astype(np.float64), *truth), identities(index)[sample[order, 0]]


def degradation(errors: np.ndarray, identity: Identity = None) -> dict | None:
    """The mean relative degradation, as defined above, and its components.

    Args:
        errors: (N, VERSIONS) signed errors in years, the clean one first; samples with NaN are left out.
        identity: who is in each sample.

    Returns:
        ``samples``, ``clean_mae``, ``mean_relative_degradation`` and by corruption ``mae`` at each strength and
        ``relative_degradation``, its mean over the strengths; each with a 95 % bootstrap ``..._interval``, for which
        people are resampled with all versions of their samples, None for fewer than ``LIMIT``. ``strengths`` has their
        parameters. None without samples; degradations are None if the clean error is 0.
    """
    is_known = ~np.isnan(errors).any(axis=1)
    errors, identity = errors[is_known], select(identity, is_known)
    if not len(errors):
        return None
    values = counted(*np.abs(errors).T)
    figures = _figures(cell_sums(values, np.zeros(len(values), dtype=np.int64)))[0]
    ends = bootstrap_of_enough(values, _figures, identity=identity)
    intervals = _named([as_pair(interval) for interval in ends.T])
    return {
        "samples": len(errors),
        **_named([finite_or_none(figure) for figure in figures]),
        **{f"{name}_interval": interval for name, interval in intervals.items()},
        "strengths": {name: list(corruption.strengths) for name, corruption in CORRUPTIONS.items()},
    }


def _named(figures: list) -> dict[str, Any]:
    """The figures of ``_figures`` by their names, and by corruption."""
    clean, maes, relative, mean = figures[0], figures[1:VERSIONS], figures[VERSIONS:-1], figures[-1]
    rows = [maes[start : start + SEVERITIES] for start in range(0, len(maes), SEVERITIES)]
    return {
        "clean_mae": clean,
        "mean_relative_degradation": mean,
        "mae": dict(zip(CORRUPTIONS, rows, strict=True)),
        "relative_degradation": dict(zip(CORRUPTIONS, relative, strict=True)),
    }


def _figures(sums: np.ndarray) -> np.ndarray:
    """(B, VERSIONS + corruptions + 1) MAEs, relative degradations by corruption and their mean, from (B, 1, K) sums."""
    mae = means(sums)[:, 0]
    clean = np.where(mae[:, :1] > 0, mae[:, :1], np.nan)
    relative = (mae[:, 1:] / clean - 1).reshape(len(mae), len(CORRUPTIONS), SEVERITIES).mean(axis=2)
    return np.concatenate([mae, relative, relative.mean(axis=1, keepdims=True)], axis=1)
