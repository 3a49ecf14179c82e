"""An estimator as one graph, from uint8 images to years, genders and tasks, with normalisation and decoding inside."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mivolo_lite import __version__
from mivolo_lite.errors import UserError, first_line
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.inference.formats import Precision
from mivolo_lite.labels import GENDERS
from mivolo_lite.tasks import Task

PRESENT = "has_"
"""Prefix of the masks of samples that have an image."""

MIXED = "mixed"

AGE, PROBABILITY, GENDER = "age", "age_probability", "gender"
"""Names of outputs; those of tasks are the tasks' names."""


class Graph(nn.Module):
    """A frozen copy of an estimator with tensors as inputs and outputs.

    The inputs, by position, are (B, 3, S, S) uint8 RGB images of each input of the model. With two inputs, a (B,) bool
    mask for each follows: which samples have the image. The pixels of the others are ignored.

    Args:
        estimator: on the CPU.
        half: compute in float16; heads and answers stay float32.

    Attributes:
        input_names, output_names: in their order.
    """

    def __init__(self, estimator: Estimator, half: bool = False):
        super().__init__()
        self.estimator = copy.deepcopy(estimator).eval().requires_grad_(False)
        self.estimator.model = self.estimator.model.for_export()
        self.estimator.channels_last = False
        self.mirrors, self.estimator.tta = self.estimator.tta == "flip", "none"
        if half:
            self.estimator.half()
        present = [PRESENT + name for name in self._inputs] if len(self._inputs) > 1 else []
        self.input_names = (*self._inputs, *present)
        with torch.inference_mode():
            self.output_names = tuple(self._answers(*self.example(1)))

    @property
    def _inputs(self) -> tuple[str, ...]:
        return self.estimator.inputs

    def example(self, batch: int, absent: str | None = None) -> tuple[Tensor, ...]:
        """Example inputs, all with random pixels.

        Args:
            batch: number of samples.
            absent: an image that none of them has, or ``MIXED`` for samples that have only the first, only the second
                and both in turn.
        """
        generator = torch.Generator().manual_seed(batch)
        shape = (batch, 3, *[self.estimator.card.image_size] * 2)
        pixels = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in self._inputs]
        rows = torch.arange(batch)
        present = [
            rows % 3 != index if absent == MIXED else torch.full((batch,), name != absent)
            for index, name in enumerate(self._inputs)
        ]
        return (*pixels, *present)[: len(self.input_names)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The answers, in the order of ``output_names``."""
        return tuple(self._answers(*inputs).values())

    def _answers(self, *inputs: Tensor) -> dict[str, Tensor]:
        return answers(self.estimator, self._mirrored_outputs(inputs) if self.mirrors else self._outputs(inputs))

    def _mirrored_outputs(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Outputs of images and mirror images as one batch: OpenCV cannot read weights that two convolutions share."""
        mirrored = [tensor.flip(-1) if tensor.ndim == 4 else tensor for tensor in inputs]
        pairs = [torch.cat(pair) for pair in zip(inputs, mirrored, strict=True)]
        halves = {name: output.unflatten(0, (2, -1)).unbind() for name, output in self._outputs(pairs).items()}
        outputs, flipped = ({name: pair[half] for name, pair in halves.items()} for half in range(2))
        return self.estimator.mean_of_mirrored(outputs, flipped)

    def _outputs(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        if len(self._inputs) == 1:
            images = {self._inputs[0]: Images.of(inputs[0])}
        else:
            images = {name: Images(*pair) for name, *pair in zip(self._inputs, inputs[:2], inputs[2:], strict=True)}
        return self.estimator(**images, batch=inputs[0].shape[0])


def answers(estimator: Estimator, output: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoded answers of an estimator's raw outputs, by the names of a graph's outputs, in float32."""
    age, gender = estimator.estimate(output)
    named = {AGE: age.age, PROBABILITY: age.probability, GENDER: gender}
    named |= {task.name: _answer(task, output[task.name].float()) for task in estimator.tasks}
    return {name: answer for name, answer in named.items() if answer is not None}


def _answer(task: Task, output: Tensor) -> Tensor:
    """(B, classes) probabilities, (B,) numbers, or (B, E) vectors."""
    if task.kind == "classification":
        return output.softmax(dim=1)
    return output.squeeze(-1) if task.kind == "regression" else output


def trace(graph: Graph) -> ExportedProgram:
    """The graph as a program of torch.export, for any batch size.

    Raises:
        UserError: a layer of the backbone cannot be exported.
    """
    batch = Dim("batch", min=1, max=1 << 16)
    shapes = tuple({0: batch} for _ in graph.input_names)
    try:
        with torch.no_grad():
            return torch.export.export(graph, graph.example(2), dynamic_shapes={"inputs": shapes})
    except Exception as error:  # torch raises many kinds of exceptions for what it cannot trace
        name = graph.estimator.card.model["name"]
        raise UserError(f"export: torch.export cannot trace this {name} model: {first_line(error)}") from error


def describe(graph: Graph, precision: Precision) -> dict[str, Any]:
    """Facts for users of the file, to prepare its images and to interpret its answers, as plain values."""
    card, size = graph.estimator.card.to_share(), graph.estimator.card.image_size
    return {
        "package": f"mivolo_lite {__version__}",
        "model": card.model["name"],
        "method": card.method["name"],
        "precision": precision,
        "inputs": {name: _expected(name, size) for name in graph.input_names},
        "preprocessing": {
            "image_size": size,
            "order": "RGB",
            "layout": "NCHW",
            "range": [0, 255],
            "normalisation": "inside the graph",
            "letterbox": "scale so that the larger side is image_size (bilinear; averaged below half the size), pad "
            "both sides with black; an odd row or column of padding goes to the bottom or right",
            "crop_policy": card.crop_policy,
            "face_square": "where crop_policy has one: a face is a square of face_square times the root of its box's "
            "area, its middle face_shift times the box's height below the box's, clipped to the photo; else the box",
            "jpeg_quality": "where crop_policy has one: predict shrinks a crop to crop_size and makes a JPEG of it, as "
            "training had, before it is letterboxed",
        },
        "outputs": {name: _meaning(graph.estimator, name) for name in graph.output_names},
        "intervals": card.calibration,
        "data_digest": card.data_digest,
    }


def _expected(name: str, size: int) -> str:
    if name.startswith(PRESENT):
        return f"bool (batch): the samples that have a {name.removeprefix(PRESENT)}"
    return f"uint8 (batch, 3, {size}, {size})"


def _meaning(estimator: Estimator, output: str) -> dict[str, Any]:
    span = estimator.card.span
    known: dict[str, dict[str, Any]] = {
        AGE: {"shape": ["batch"], "unit": "years"},
        PROBABILITY: {"shape": ["batch", "ages"], "ages": [span["min_age"], span["max_age"]]},
        GENDER: {"shape": ["batch", len(GENDERS)], "probabilities_of": list(GENDERS)},
    }
    known |= {task.name: {"kind": task.kind, "probabilities_of": task.classes} for task in estimator.tasks}
    return known[output]
