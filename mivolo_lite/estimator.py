"""A model, an age method and a gender head as one module, and the files that inference needs of it."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from mivolo_lite.data.labels import GENDERS
from mivolo_lite.errors import UserError
from mivolo_lite.files import save_tensors, write_text
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeEstimate, AgeSpan
from mivolo_lite.models import MODELS
from mivolo_lite.models.weights import load_exactly
from mivolo_lite.tasks import make_centres, make_subnets, read_tasks

MODEL_FILE, CARD_FILE = "model.safetensors", "model.yaml"
AVERAGE_FILE = "average.safetensors"
"""A checkpoint's averaged weights (EMA), which are those to use."""

_TRAINING_ONLY = "centres."
"""Prefix of the weights that inference does without."""


@dataclass
class Card:
    """Everything needed to build an estimator again, and where it came from.

    Attributes:
        model, method: their names and options.
        span: the ages it covers.
        image_size: side of its square pictures in pixels.
        normalisation: ``mean`` and ``std`` of the three channels, of pictures in [0, 1]; the model's own where empty.
        crop_policy: how the crops it was trained on were made.
        data_digest: names the shards it was trained on.
        metrics: what it reached on its validation data.
        tasks: what it answers beside age and gender, each as the fields of a ``Task``.
        calibration: age intervals and the temperature of the gender, from ``calibrate``; empty before that.
    """

    model: dict[str, Any]
    method: dict[str, Any]
    span: dict[str, int]
    image_size: int
    normalisation: dict[str, list[float]] = field(default_factory=dict)
    crop_policy: dict[str, Any] = field(default_factory=dict)
    data_digest: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] = field(default_factory=dict)

    def from_nothing(self) -> "Card":
        """The same, of a model that starts from no other weights: what it started from may be gone or far away."""
        sources = {name: None for name in self.model if name.endswith("weights")}
        sources |= {name: False for name in self.model if name == "pretrained"}
        return replace(self, model=self.model | sources)


def require_files(folder: Path | str, *names: str) -> None:
    """Raise UserError where a folder lacks any of these files."""
    for name in names:
        if not (Path(folder) / name).is_file():
            raise UserError(f"{folder}: no {name} here; give the `best` folder of a run, or a converted checkpoint")


class Estimator(nn.Module):
    """Estimates age, gender and what its tasks ask from uint8 pictures. Normalisation is part of it, on the device.

    Args:
        card: what to build.
        people: how many its embeddings are trained to tell apart; 0 for inference.
    """

    def __init__(self, card: Card, people: int = 0):
        super().__init__()
        self.card = card
        self.model = _build(MODELS, card.model, "model", lambda cls, config: cls(config, card.image_size))
        span = AgeSpan(**card.span)
        self.method = _build(
            METHODS, card.method, "method", lambda cls, config: cls(self.model.make_head, span, config)
        )
        self.gender_head = self.model.make_head(len(GENDERS))
        self.tasks = read_tasks(card.tasks)
        self.subnets = make_subnets(self.model, self.tasks)
        self.heads = nn.ModuleDict({task.name: task.make_head(self.model) for task in self.tasks})
        self.centres = make_centres(self.model, self.tasks, people)
        if not card.normalisation:
            card.normalisation = {"mean": list(self.model.mean), "std": list(self.model.std)}
        for name, channels in card.normalisation.items():
            value = torch.tensor(channels).view(1, 3, 1, 1) * 255
            self.register_buffer(f"pixel_{name}", value, persistent=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The pictures it looks at, of ``face`` and ``body``."""
        return self.model.inputs

    def forward(
        self,
        face: Tensor | None = None,
        body: Tensor | None = None,
        has_face: Tensor | None = None,
        has_body: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Raw outputs for a batch.

        Args:
            face, body: (B, 3, S, S) uint8 RGB, or None where the model has no such input.
            has_face, has_body: (B,) bool, which of them are there.

        Returns:
            ``age``, the method's raw output, ``gender``, (B, 2) logits over ``GENDERS``, and every task's by its name;
            in training, of an embedding with centres, the cosines to all of them.
        """
        features = self.model(self._normalise(face), self._normalise(body), has_face, has_body)
        read = {name: subnet(features) for name, subnet in self.subnets.items()}
        answers = {task.name: self.heads[task.name](read[task.reads]) for task in self.tasks}
        if self.training:
            answers |= {name: centres(answers[name]) for name, centres in self.centres.items()}
        return {"age": self.method(read["age"]), "gender": self.gender_head(read["gender"]), **answers}

    def estimate(self, output: dict[str, Tensor]) -> tuple[AgeEstimate, Tensor]:
        """Ages in years and (B, 2) probabilities over ``GENDERS`` from a forward pass's output."""
        logits = output["gender"].float() / self.card.calibration.get("gender_temperature", 1.0)
        return self.method.estimate(output["age"]), logits.softmax(dim=1)

    def save(self, folder: Path | str, weights: dict[str, Tensor] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.yaml``, without what only training needs.

        Args:
            folder: made where it is missing.
            weights: the state dict, from where its parameters are spread over several processes.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict() if weights is None else weights
        kept = {name: tensor.contiguous() for name, tensor in weights.items() if not name.startswith(_TRAINING_ONLY)}
        save_tensors(kept, folder / MODEL_FILE)
        self.save_card(folder)

    def save_card(self, folder: Path | str) -> None:
        """Write ``model.yaml`` alone, by a rename."""
        write_text(Path(folder) / CARD_FILE, yaml.safe_dump(asdict(self.card), sort_keys=False))

    @classmethod
    def load(cls, folder: Path | str) -> "Estimator":
        """Read what ``save`` wrote, in evaluation mode. Raises UserError where that is not there, or does not fit."""
        folder = Path(folder)
        require_files(folder, MODEL_FILE, CARD_FILE)
        card = Card(**yaml.safe_load((folder / CARD_FILE).read_text())).from_nothing()
        estimator = cls(card)
        estimator.take(folder)
        return estimator.eval()

    def take(self, folder: Path | str) -> None:
        """Load all weights that ``save`` wrote, but for those of tasks that are not asked here.

        What only training needs stays as it is.

        Raises:
            UserError: they are not there, or of another estimator.
        """
        require_files(folder, MODEL_FILE)
        path = Path(folder) / MODEL_FILE
        loss_buffers = tuple(f"method.{name}" for name in self.method.loss_buffers)
        kept = (_TRAINING_ONLY, *loss_buffers)
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(kept)}
        asked = {name: tensor for name, tensor in load_file(path).items() if self._asks(name)}
        load_exactly(self, asked | own, path)

    def _asks(self, weight: str) -> bool:
        """Whether a weight belongs to no task alone, or to one of these."""
        part, _, rest = weight.partition(".")
        return part not in ("subnets", "heads") or rest.partition(".")[0] in getattr(self, part)

    def _normalise(self, picture: Tensor | None) -> Tensor | None:
        return None if picture is None else (picture.float() - self.pixel_mean) / self.pixel_std


def _build(registry: dict[str, type], options: dict[str, Any], kind: str, construct):
    options = dict(options)
    name = options.pop("name")
    if name not in registry:
        raise UserError(f"{kind} {name!r} is not known; there are {', '.join(registry)}")
    return construct(registry[name], registry[name].Config(**options))
