"""The stock webdataset pipeline, for shards that cannot be read at an offset (``pipe:...``, standard input)."""

import json
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import DataLoader

from mivolo_lite.data.batch import Batch
from mivolo_lite.data.jpeg import BrokenJpeg, decode
from mivolo_lite.data.labels import GENDERS, NO_CODE
from mivolo_lite.data.randomness import seed_of
from mivolo_lite.data.sample import BODY_EXTENSIONS, FACE_EXTENSIONS, Labels
from mivolo_lite.data.transforms import Augment, AugmentConfig, prepare, seeded

_EXTENSIONS = {"face": FACE_EXTENSIONS, "body": BODY_EXTENSIONS}
_SHUFFLED_SAMPLES = 1000


def stream_loader(
    urls: str,
    inputs: Sequence[str],
    image_size: int,
    batch_size: int,
    augment: AugmentConfig,
    seed: int,
    workers: int,
) -> DataLoader:
    """Endless batches from any address that webdataset takes, ``pipe:`` and braces included.

    What it does not promise, and ``reader: index`` does: shards are drawn with replacement, anew by every worker of
    every rank, so a sample may come twice in an epoch or not at all; no two runs have the same order; a resumed run
    does not go on where it stopped; samples that cannot be decoded are passed over; inputs are never hidden.
    """
    # Drawing with replacement is the only way in which webdataset gives all ranks equally many batches.
    dataset = wds.WebDataset(urls, resampled=True, shardshuffle=False)
    make = partial(_batches, inputs=tuple(inputs), size=image_size, batch_size=batch_size, augment=augment, seed=seed)
    dataset = dataset.shuffle(_SHUFFLED_SAMPLES).compose(make)
    return DataLoader(dataset, batch_size=None, num_workers=workers, generator=torch.Generator())


def _batches(
    samples: Iterator[dict], inputs: tuple[str, ...], size: int, batch_size: int, augment: AugmentConfig, seed: int
) -> Iterator[Batch]:
    changes, rows = Augment(augment), []
    for number, sample in enumerate(samples):
        try:
            with seeded(seed_of(seed, number)):
                rows.append(_row(sample, inputs, size, changes))
        except (BrokenJpeg, ValueError):
            continue
        if len(rows) == batch_size:
            yield _collate(rows, inputs, size, number)
            rows = []


def _row(sample: dict, inputs: tuple[str, ...], size: int, changes: Augment) -> tuple[dict[str, Tensor], Labels]:
    """The pictures that there are, and the labels."""
    found = {name: next((sample[ext] for ext in _EXTENSIONS[name] if ext in sample), None) for name in inputs}
    pictures = {name: prepare(decode(data), size, changes) for name, data in found.items() if data is not None}
    if not pictures:
        raise ValueError("no picture")
    record = json.loads(sample["json"]) if "json" in sample else {"age": sample["cls"].decode()}
    return pictures, Labels.from_json(record)


def _collate(rows: list[tuple[dict[str, Tensor], Labels]], inputs: tuple[str, ...], size: int, last: int) -> Batch:
    blank = torch.zeros(3, size, size, dtype=torch.uint8)
    labels = [label for _, label in rows]
    ages = np.array([label.age or (np.nan, np.nan) for label in labels], dtype=np.float32)
    genders = [NO_CODE if label.gender is None else GENDERS.index(label.gender) for label in labels]
    return Batch.assemble(
        {name: torch.stack([pictures.get(name, blank) for pictures, _ in rows]) for name in inputs},
        {name: np.array([name in pictures for pictures, _ in rows]) for name in inputs},
        {"age_lo": ages[:, 0], "age_hi": ages[:, 1], "gender": np.array(genders, dtype=np.uint8)},
        np.arange(last + 1 - len(rows), last + 1),
        np.ones(len(rows), dtype=bool),
    )
