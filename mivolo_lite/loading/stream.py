"""webdataset's stages, for shards that cannot be read at an offset (``pipe:...``, standard input)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from webdataset.filters import shuffle
from webdataset.shardlists import expand_urls

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import BrokenJpeg, decode
from mivolo_lite.images.packed import Images
from mivolo_lite.labels import AGE_STD
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.stream_source import StreamSource
from mivolo_lite.loading.task_labels import label_number
from mivolo_lite.loading.transforms import Augment
from mivolo_lite.loading.worker_process import begin_worker, end_workers_at_exit
from mivolo_lite.shards.columns import label_columns
from mivolo_lite.shards.sample import BODY_EXTENSIONS, FACE_EXTENSIONS, Labels
from mivolo_lite.wording import first_few

_EXTENSIONS = {"face": FACE_EXTENSIONS, "body": BODY_EXTENSIONS}
_IMAGE_EXTENSIONS = (*FACE_EXTENSIONS, *BODY_EXTENSIONS)
_SHUFFLED_SAMPLES = 1000


def stream_loader(
    config: DataConfig,
    inputs: Sequence[str],
    batch_size: int,
    seed: int,
    classes: Mapping[str, Sequence[str]],
    negated: tuple[str, ...],
) -> Iterator[Batch]:
    """Endless batches of ``data.train``: any address that webdataset takes, also with braces or as ``pipe:COMMAND``.

    Unlike with ``reader: index``, every worker samples shards with replacement, so a sample may come twice in an epoch
    or not at all. The order is not reproducible, a resumed run does not continue at the same sample, and inputs are
    never hidden.

    Raises:
        UserError: during iteration, if a shard cannot be read or no sample came for a minute.
    """
    augment = Augment(config.augment)
    batches = _Batches(tuple(inputs), config.image_size, batch_size, augment, seed, classes, negated)
    end_workers_at_exit()
    loader = DataLoader(
        _Stream(str(config.train), batches),
        batch_size=None,
        num_workers=config.worker_count,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )
    return _raising(loader)


def _raising(loader: DataLoader) -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _Stream(IterableDataset):
    """The dataset of a worker. It yields an error instead of raising it, which torch would wrap in a traceback."""

    def __init__(self, urls: str, batches: "_Batches"):
        self.urls, self.batches = urls, batches

    def __iter__(self) -> Iterator[Batch | UserError]:
        try:
            yield from self.batches(shuffle(_SHUFFLED_SAMPLES)(iter(StreamSource(self.urls))))
        except UserError as error:
            yield error


def check_address(urls: str) -> None:
    """Raise UserError if an address names a file that does not exist."""
    for url in expand_urls(urls):
        if ":" not in url and not Path(url).is_file():
            raise UserError(
                f"data.train {url!r}: no such file; reader: stream takes tars, as in train-{{000..099}}.tar"
            )


@dataclass(frozen=True)
class _Batches:
    """The pipeline's last stage. Undecodable images count as absent and are reported, as with the other reader."""

    inputs: tuple[str, ...]
    image_size: int
    batch_size: int
    augment: Augment
    seed: int
    classes: Mapping[str, Sequence[str]]
    negated: tuple[str, ...]

    def __call__(self, samples: Iterator[dict]) -> Iterator[Batch]:
        for start in count(step=self.batch_size):
            batch = list(islice(samples, self.batch_size))
            if not batch:
                return
            yield self._batch(np.arange(start, start + len(batch)), batch)

    def _batch(self, positions: np.ndarray, samples: list[dict]) -> Batch:
        broken: list[str] = []
        keys = np.array([crc32(sample["__key__"].encode()) for sample in samples])
        numbers = self.augment.numbers(self.seed, positions, keys)
        images = {name: self._images(name, samples, numbers, broken) for name in self.inputs}
        labels = [_labels(sample, broken) for sample in samples]
        broken += [_no_image(sample) for sample in samples if not any(map(sample.get, _IMAGE_EXTENSIONS))]
        columns = label_columns(labels)
        if any(AGE_STD in label.extra for label in labels):
            columns[AGE_STD] = _label_numbers(AGE_STD, (), samples, labels, broken)
        tasks = {name: _label_numbers(name, choices, samples, labels, broken) for name, choices in self.classes.items()}
        self.augment.negate_flipped(tasks, self.negated, numbers)
        return Batch.assemble(images, columns, positions, np.ones(len(samples), dtype=bool), broken, tasks).tensors()

    def _images(self, name: str, samples: list[dict], numbers: list[list[float]], broken: list[str]) -> Images:
        squares = np.zeros((len(samples), self.image_size, self.image_size, 3), np.uint8)
        present: list[int] = []
        for row, sample in enumerate(samples):
            image = _decoded(name, sample, broken)
            if image is not None:
                self.augment(image, squares[len(present)], numbers[row])
                present.append(row)
        pixels = torch.from_numpy(squares[: len(present)]).movedim(-1, -3)
        return Images(pixels, torch.tensor(present, dtype=torch.int64))


def _decoded(name: str, sample: dict, broken: list[str]) -> np.ndarray | None:
    """A sample's image; None where there is none that can be decoded."""
    data = next((sample[extension] for extension in _EXTENSIONS[name] if extension in sample), None)
    try:
        return None if data is None else decode(data)
    except BrokenJpeg as error:
        broken.append(f"{sample['__key__']}.{name}: {error}")
        return None


def _no_image(sample: dict) -> str:
    members = sorted(name for name in sample if not name.startswith("__"))
    return f"{sample['__key__']}: no face or body image among its members ({first_few(members)})"


def _label_numbers(
    name: str, choices: Sequence[str], samples: list[dict], labels: list[Labels], broken: list[str]
) -> np.ndarray:
    """(B,) labels of a task, or of ``age_std``, NaN where unknown."""
    column, title = np.full(len(samples), np.nan), name if name == AGE_STD else f"task {name}"
    for row, sample in enumerate(samples):
        try:
            column[row] = label_number(labels[row], name, choices)
        except ValueError as error:
            broken.append(f"{sample['__key__']}: {title}: {error}")
    return column


def _labels(sample: dict, broken: list[str]) -> Labels:
    try:
        return Labels.from_members(sample)
    except ValueError as error:
        broken.append(f"{sample['__key__']}: {error}")
        return Labels()
