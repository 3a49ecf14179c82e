"""The command ``predict``: from a list of items, divided among processes, to rows in files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from tqdm import tqdm

from mivolo_lite.errors import UserError
from mivolo_lite.files import require_replaceable, result_folder, write_bytes
from mivolo_lite.images.letterbox import fitted, resize
from mivolo_lite.inference.draw import draw
from mivolo_lite.inference.partial_results import PartialResults
from mivolo_lite.inference.people import Located, Person
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.result_files import RESULT_FILES, write_results
from mivolo_lite.inference.resuming import Processes, run_resumably
from mivolo_lite.inference.rows import row_of
from mivolo_lite.inference.sources import Item, read_image
from mivolo_lite.inference.video import predict_video
from mivolo_lite.inference.work import PredictOptions, Result
from mivolo_lite.packing.decode import UnusablePhoto
from mivolo_lite.packing.sources.cutting import Crops
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.rejects import REJECTED_FILE
from mivolo_lite.shards.storage import open_shards

_MEGAPIXELS = 64e6  # pixels of photos in memory at once
_BLOCK_SAMPLES = 256
_ANNOTATED_QUALITY, _JPEG_SIDE = 90, 65500


class _Photo(NamedTuple):
    number: int
    item: Item
    image: np.ndarray
    people: list[Located]


def run_items(
    predictor: Predictor, items: Sequence[tuple[int, Item]], options: PredictOptions, hidden: bool
) -> Iterator[tuple[int, Result]]:
    """The results of numbered items, in their order; a long video gives several.

    Args:
        predictor: estimates people.
        items: with their numbers.
        options: how items are read.
        hidden: show no progress bar.
    """
    load_index = lru_cache(maxsize=1)(ShardIndex.load)  # once for all spans of a data set
    bar = tqdm(total=len(items), desc="predicting", unit="", leave=False, disable=hidden or None)
    with bar:
        for group in _groups(items, options.batch):
            if group[0][1].kind == "image":
                yield from _images(predictor, group, options)
            else:
                ((number, item),) = group
                results = (
                    _shards(predictor, item, load_index(item.address))
                    if item.kind == "shards"
                    else predict_video(predictor, number, item, options)
                )
                for result in results:
                    bar.set_postfix_str("" if result.frame is None else f"frame {result.frame}")
                    yield number, result
            bar.update(len(group))


def _groups(items: Sequence[tuple[int, Item]], most: int) -> Iterator[list[tuple[int, Item]]]:
    """Up to ``most`` consecutive images together, everything else alone."""
    for is_image, neighbours in groupby(items, key=lambda numbered: numbered[1].kind == "image"):
        while group := list(islice(neighbours, most if is_image else 1)):
            yield group


def _images(
    predictor: Predictor, group: Sequence[tuple[int, Item]], options: PredictOptions
) -> Iterator[tuple[int, Result]]:
    waiting: list[_Photo] = []
    for number, item in group:
        try:
            image = read_image(item).image
        except UnusablePhoto as reason:
            yield from _estimated(predictor, waiting, options)
            waiting = []
            yield number, Result(rejected=[{"image": item.name, "reason": str(reason)}])
            continue
        if waiting and sum(photo.image.size for photo in waiting) + image.size > 3 * _MEGAPIXELS:
            yield from _estimated(predictor, waiting, options)
            waiting = []
        people = predictor.locate(image) if options.boxes is None else options.boxes(item.address)
        waiting.append(_Photo(number, item, image, people))
    yield from _estimated(predictor, waiting, options)


def _estimated(predictor: Predictor, photos: Sequence[_Photo], options: PredictOptions) -> Iterator[tuple[int, Result]]:
    estimates = predictor.estimate([photo.image for photo in photos], [photo.people for photo in photos])
    for (number, item, image, _), people in zip(photos, estimates, strict=True):
        if options.annotated is not None:
            write_bytes(options.annotated / item.annotated_name(number, ".jpg"), _annotated_jpeg(image, people))
        yield number, Result([row_of(person, item.name) for person in people or (None,)])


def _annotated_jpeg(image: np.ndarray, people: Sequence[Person]) -> bytes:
    """The photo with boxes and ages; panoramas are shrunk to the largest size of a JPEG."""
    annotated = draw(image, people)
    if max(annotated.shape) > _JPEG_SIDE:
        annotated = resize(annotated, *fitted(annotated.shape[1], annotated.shape[0], _JPEG_SIDE))
    return simplejpeg.encode_jpeg(annotated, _ANNOTATED_QUALITY, colorspace="RGB")


def _shards(predictor: Predictor, item: Item, index: ShardIndex) -> Iterator[Result]:
    """The samples of a span of shards, whose crops are cut already."""
    reader = open_shards(index, _BLOCK_SAMPLES)
    reader.prepare(np.arange(item.samples.start, item.samples.stop), ())
    read = partial(_member, index, reader)
    crops = [Crops(read("face", sample), read("body", sample)) for sample in item.samples]
    people = predictor.estimate_crops(crops)
    yield Result([
        row_of(person, f"{item.name}/{index.key(sample)}") for sample, person in zip(item.samples, people, strict=True)
    ])  # fmt: skip


def _member(index: ShardIndex, reader: Any, name: str, sample: int) -> bytes | None:
    return reader.read(name, sample) if index.columns[f"{name}_size"][sample] else None


def predict(
    predictor: Predictor,
    items: Sequence[Item],
    out: Path,
    options: PredictOptions,
    settings: Mapping[str, Any],
    processes: Processes,
) -> dict[str, int] | None:
    """Write ``predictions.csv``, ``predictions.jsonl``, ``rejected.jsonl`` and, for videos, ``tracks.csv``.

    Estimates of an interrupted call with the same settings are not repeated.

    Args:
        predictor: estimates people, on this process's device.
        items: of all processes.
        out: folder for the results; created if it is missing.
        options: how items are read.
        settings: everything that results depend on, for ``json``.
        processes: this one, and those that share the items with it.

    Returns:
        the numbers of ``rows`` and of ``rejected`` items; None from all processes but the first.

    Raises:
        UserError: ``out`` holds other results, or cannot be written; or the model's answers are no numbers.
        Unfinished: after Ctrl-C or an error of one line in a single process, or if results cannot be written.
    """
    if processes.world_size > 1:
        cv2.setNumThreads(1)
    if processes.rank == 0:
        require_replaceable(out, RESULT_FILES, [] if options.boxes is None else [options.boxes.path])
        result_folder(out, ())
        if options.annotated is not None:
            result_folder(options.annotated, ())
    tasks = [task.name for task in predictor.estimator.tasks if task.kind != "embedding"]
    counts = run_resumably(
        PartialResults(out, items, RESULT_FILES, numbered=options.annotated is not None),
        settings,
        lambda own: run_items(predictor, own, options, hidden=processes.rank != 0),
        lambda results: write_results((result for _, result in results), out, tasks),
        processes,
    )
    if counts is not None and counts["rejected"] and not counts["rows"]:
        first = json.loads((out / REJECTED_FILE).read_text(encoding="utf-8").partition("\n")[0])
        reason = f"{first['image']}: {first['reason']}"
        if counts["rejected"] > 1:
            reason = f"none of {counts['rejected']} files can be read; the first is {reason}"
        raise UserError(reason)
    return counts
