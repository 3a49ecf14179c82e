"""From photos to people with ages: detection, pairing, cutting and estimation in one object."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import IOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import torch
from PIL import Image

from mivolo_lite.card import DEFAULT, NO_AGES, Tta
from mivolo_lite.convert.convert import convert
from mivolo_lite.convert.mivolo_v2 import is_hub_layout
from mivolo_lite.credentials import without_credentials
from mivolo_lite.device import usable_device
from mivolo_lite.errors import UserError, first_line
from mivolo_lite.estimator import Estimator
from mivolo_lite.hub import local_copy
from mivolo_lite.inference.answers import Answers
from mivolo_lite.inference.cutting import Cutter
from mivolo_lite.inference.defaults import MIN_SCORE, NONE, RULE, YUNET
from mivolo_lite.inference.detect import open_detector
from mivolo_lite.inference.flags import flags_of
from mivolo_lite.inference.pair import pair
from mivolo_lite.inference.people import Located, Person
from mivolo_lite.inference.sources import Item, read_image
from mivolo_lite.inference.windows import Find
from mivolo_lite.packing.decode import UnusablePhoto, image_of
from mivolo_lite.packing.sources.cutting import Crops

ImageLike = str | Path | np.ndarray | Image.Image

_SINGLE = (str, Path, np.ndarray, Image.Image, bytes, IOBase)
"""Types of a single image, or of none, some of which are iterable in Python."""

_HELD_BYTES = 3 * 64 << 20  # bytes of decoded photos in memory at once: an iterator may give any number


class Predictor:
    """Estimates everybody in photos. It has no state between calls, and is thread-safe.

    Args:
        estimator: on its device, in evaluation mode.
        find_faces: the face detector; None if boxes are given.
        persons: ``rule`` guesses bodies from faces if the model uses bodies, ``none`` gives it only faces; or a body
            detector. For a model of faces alone, the name of such a detector is enough.
        batch: people in one forward pass.
        half: compute in half precision.

    Attributes:
        notes: sentences on differences from training that cannot be avoided.
    """

    def __init__(
        self,
        estimator: Estimator,
        find_faces: Find | None,
        persons: str | Find = RULE,
        batch: int = 32,
        half: bool = False,
    ) -> None:
        self.estimator, self.find_faces = estimator, find_faces
        needs_bodies = "body" in estimator.inputs
        self.find_bodies = None if isinstance(persons, str) or not needs_bodies else persons
        detector = getattr(find_faces, "name", None)
        self.cutter = Cutter(estimator.card.crop_policy, estimator.inputs, persons == RULE, detector)
        self.answers = Answers(estimator, batch, half)
        self.notes = [*self.cutter.notes, *([] if estimator.card.age else [NO_AGES])]
        if estimator.card.calibration and estimator.tta != estimator.card.tta:
            self.notes.append(f"the age intervals were calibrated with --tta {estimator.card.tta}, not {estimator.tta}")
        if persons not in (RULE, NONE) and not needs_bodies:
            self.notes.append("the model looks at faces alone; --persons finds no bodies for it")

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        *,
        detector: str | None = YUNET,
        persons: str | None = RULE,
        device: str = "auto",
        batch: int = 32,
        half: bool | None = None,
        compile: bool = False,
        min_score: float = MIN_SCORE,
        tta: Tta | None = None,
    ) -> "Predictor":
        """A predictor from files.

        Args:
            checkpoint: an address for ``load_estimator``; None for the package's own.
            detector: ``yunet`` or a file, as for ``open_detector``; None if boxes are given to ``estimate``.
            persons: ``rule``, ``none`` or None, or a torchvision detector by its name or file, see
                ``open_body_detector``.
            device: ``auto`` is the CUDA GPU if there is one; ``mps`` is Apple's.
            batch: people in one forward pass.
            half: compute in half precision; None does so on CUDA GPUs.
            compile: compile the model, which takes a minute and is worthwhile for many photos.
            min_score: faces with a lower detector score are left out.
            tta: test-time augmentation, see ``Estimator``; None for the card's.

        Raises:
            UserError: one of them is missing or not usable.
        """
        if tta not in (None, *get_args(Tta)):
            raise UserError(f"tta {tta!r}: give one of {', '.join(get_args(Tta))}")
        for name, value in (("half", half), ("compile", compile)):  # the text "no" would count as true
            if value not in (None, True, False):
                raise UserError(f"{name} {value!r}: give True or False")
        estimator = load_estimator(DEFAULT if checkpoint is None else checkpoint)
        estimator.use_tta(tta)
        if persons in (NONE, None) and detector is not None and "face" not in estimator.inputs:
            raise UserError("--persons none: the model looks at bodies alone, so nobody has an age; leave it out")
        find_faces = None if detector is None else open_detector(detector, min_score)
        find_bodies: str | Find = NONE if persons is None else persons
        if persons not in (RULE, NONE, None):
            from mivolo_lite.inference import bodies  # torchvision takes a second to import

            bodies.require_body_detector(persons)
            if "body" in estimator.inputs:  # for other models, nothing is downloaded
                find_bodies = bodies.open_body_detector(persons, choose_device(device))
        estimator = prepare(estimator, choose_device(device), compile)
        on_gpu = estimator.device.type == "cuda"
        return cls(estimator, find_faces, find_bodies, batch, on_gpu if half is None else half)

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> list[list[Person]]:
        """The people of each image, highest detector score first.

        Args:
            images: paths, URLs, (H, W, 3) uint8 RGB arrays, PIL images, or one of these.

        Raises:
            UserError: an image cannot be read; ``mivolo-lite predict`` lists such images and continues.
        """
        if isinstance(images, _SINGLE) or not isinstance(images, Iterable):
            images = [images]
        people: list[list[Person]] = []
        held: list[np.ndarray] = []
        held_bytes = 0
        for image in images:
            held.append(as_array(image))
            held_bytes += held[-1].nbytes
            if held_bytes > _HELD_BYTES:
                people += self._people_of(held)
                held, held_bytes = [], 0
        return people + self._people_of(held)

    def _people_of(self, images: Sequence[np.ndarray]) -> list[list[Person]]:
        return self.estimate(images, [self.locate(image) for image in images])

    def locate(self, image: np.ndarray) -> list[Located]:
        """The people of a photo (H, W, 3) uint8 RGB, with faces and bodies paired."""
        if self.find_faces is None:
            raise UserError("this predictor was loaded without a detector; give the boxes to `estimate`")
        faces = self.find_faces(image)
        if self.find_bodies is None:
            return [Located(face.box, None, face.score, face.landmarks) for face in faces]
        return pair(faces, self.find_bodies(image))

    def estimate(self, images: Sequence[np.ndarray], people: Sequence[Sequence[Located]]) -> list[list[Person]]:
        """The people of each photo with their estimates, in the order of ``people``.

        Args:
            images: (H, W, 3) uint8 RGB each.
            people: their boxes in each photo.
        """
        crops = [self.cutter(image, located) for image, located in zip(images, people, strict=True)]
        answers = iter(self.answers([crop for of_image in crops for crop in of_image]))
        return [
            [
                _person(self.cutter.with_body(person), crop, flags_of(image, person, self.find_faces), next(answers))
                for person, crop in zip(located, of_image, strict=True)
            ]
            for image, located, of_image in zip(images, people, crops, strict=True)
        ]

    def estimate_crops(self, crops: Sequence[Crops]) -> list[Person]:
        """The estimates for crops that are cut already, as in shards."""
        inputs = self.estimator.inputs
        needed = [
            Crops(crop.face if "face" in inputs else None, crop.body if "body" in inputs else None) for crop in crops
        ]
        reasons = (f"no {' and no '.join(inputs)}",)
        return [
            _person(Located(None), crop, reasons if answer is None else (), answer)
            for crop, answer in zip(needed, self.answers(needed), strict=True)
        ]


def as_array(image: ImageLike) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a path, a URL, an array or a PIL image. Raises UserError for anything else."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"an array of {image.dtype} {image.shape}: give (H, W, 3) uint8 RGB")
        return image
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise UserError(f"an image of {image.width}x{image.height} pixels: give one with pixels")
        try:
            return image_of(image)
        except Exception as error:  # Pillow decodes late, and a damaged file may raise anything
            raise UserError(f"image: {first_line(error)}") from None
    if not isinstance(image, str | Path):
        raise UserError(f"an image of type {type(image).__name__}: give a path, a URL, an array or a PIL image")
    try:
        return read_image(Item("image", str(image))).image
    except UnusablePhoto as error:
        raise UserError(f"{without_credentials(str(image))}: {error}") from None


def load_estimator(checkpoint: str | Path) -> Estimator:
    """The estimator of an address for ``Estimator.load``, or of a file or folder for ``mivolo-lite convert``."""
    source = local_copy(checkpoint)
    if not source.is_file() and not is_hub_layout(source):
        return Estimator.load(checkpoint)
    with TemporaryDirectory() as folder:
        return Estimator.load(convert(source, Path(folder) / "converted"))


def choose_device(name: str) -> torch.device:
    """The device for ``--device``; ``auto`` is this process's CUDA GPU if there is one. Raises UserError.

    ``auto`` is never Apple's GPU (``mps``), since its answers have not been compared with the CPU's.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        return torch.device("cpu")
    return usable_device(name, "--device")


def prepare(estimator: Estimator, device: torch.device, compile: bool) -> Estimator:
    """The estimator on a device, in evaluation mode, with the fastest layers for it."""
    estimator = estimator.eval().to(device)
    if device.type == "cpu":
        estimator.model = estimator.model.for_inference()
    if compile:
        estimator.model.compile()
    return estimator


def _person(located: Located, crops: Crops, flags: tuple[str, ...], estimated: Person | None) -> Person:
    """A person with boxes, flags and the crops' estimates, which are None if there are no crops."""
    return replace(
        estimated or Person(),
        face=located.face,
        body=located.body,
        inputs=tuple(name for name in ("face", "body") if getattr(crops, name) is not None),
        score=located.score,
        flags=flags + tuple(f"{name} {reason}".strip() for name, reason in crops.missing),
    )
