"""A model, an age method, a gender head and tasks as one module, and its files."""

from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mivolo_lite.card import CARD_FILE, MODEL_FILE, Card, Tta, locate, require_files, weights_file
from mivolo_lite.errors import UserError, first_line
from mivolo_lite.files import explain_write_errors, save_tensors
from mivolo_lite.images.normalise import Normalise
from mivolo_lite.images.packed import Images, scatter
from mivolo_lite.interfaces import interface_error
from mivolo_lite.labels import GENDERS
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeEstimate, AgeSpan
from mivolo_lite.models import BUILDERS
from mivolo_lite.models.backbone_source import architecture_of
from mivolo_lite.models.weights import load_exactly, require_finite
from mivolo_lite.option_values import build
from mivolo_lite.processes import fork_with_one_thread
from mivolo_lite.tasks import make_centres, make_subnets, negated_tasks, read_tasks

_TRAINING_ONLY = ("centres.", "projection.")
"""Prefixes of the weights that inference does not need."""
_GRID = 16
"""Sizes of ``multiscale`` differ by multiples of this many pixels, half of the stride of most backbones."""
GENDER_HEAD = "gender_head."
"""Prefix of the weights that inference does not need without gender."""


class Estimator(nn.Module):
    """Estimates age, gender and tasks from uint8 images, which it normalises on the device.

    Args:
        card: describes the estimator.
        people: number of identities in the training of embeddings; 0 for inference.

    Attributes:
        channels_last: whether the model gets images in channels-last memory format.
        projection: projection of the pooled features for feature distillation, or None.
        tta: test-time augmentation, initially the card's: ``flip`` averages raw outputs over images and mirror images,
            ``multiscale`` also over three sizes.
    """

    channels_last = True
    projection: nn.Module | None

    def __init__(self, card: Card, people: int = 0):
        super().__init__()
        self.card = card
        self.tta: Tta = card.tta
        self.model = build(BUILDERS, card.model, "model", lambda cls, config: cls(config, card.image_size))
        self.model.require_attributes()
        card.model = {option: _plain_name(value) for option, value in card.model.items()}
        span = AgeSpan(**card.span)
        self.method = build(METHODS, card.method, "method", lambda cls, config: cls(self.model.make_head, span, config))
        self.gender_head = self.model.make_head(len(GENDERS)) if card.gender else None
        self.tasks = read_tasks(card.tasks)
        self.subnets = make_subnets(self.model, self.tasks)
        self.heads = nn.ModuleDict({task.name: task.make_head(self.model) for task in self.tasks})
        self.centres = make_centres(self.model, self.tasks, people)
        self.register_module("projection", None)
        if not card.normalisation:
            card.normalisation = {"mean": list(self.model.mean), "std": list(self.model.std)}
        mean, std = (card.normalisation[name] for name in ("mean", "std"))
        layers = {name: Normalise(*self.model.normalisation(name, mean, std)) for name in self.inputs}
        self.normalise = nn.ModuleDict(layers)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The images that it takes, of ``face`` and ``body``."""
        return self.model.inputs

    @property
    def device(self) -> torch.device:
        """The device of its weights, on which images must be."""
        return cast(Tensor, self.normalise[self.inputs[0]].scale).device

    def forward(
        self, face: Images | None = None, body: Images | None = None, batch: int | None = None
    ) -> dict[str, Tensor]:
        """Raw outputs for a batch.

        Args:
            face, body: the batch's images, uint8 RGB; None for none. Images that are no input of the model are ignored.
            batch: number of samples; by default the largest number of images of an input.

        Returns:
            ``age``, the method's raw output, ``gender``, (B, 2) logits over ``GENDERS`` where the card has it, and
            every task's by its name; in training, of an embedding with centres, the cosines to all of them; and
            ``projection``, (B, P), where there is one.
        """
        nothing = Images.none_of(self.card.image_size, self.device)
        images = {"face": nothing if face is None else face, "body": nothing if body is None else body}
        if batch is None:
            batch = max(len(images[name].rows) for name in self.inputs)
        if self.tta == "none" or self.training:
            return self._outputs(images, batch)
        if self.tta == "flip":
            return self._outputs_with_mirrored(images, batch)
        views = ({name: packed.resized(size) for name, packed in images.items()} for size in self.scales)
        answers = [self._outputs_with_mirrored(view, batch) for view in views]
        return {name: torch.stack([answer[name] for answer in answers]).mean(dim=0) for name in answers[0]}

    @property
    def scales(self) -> tuple[int, int, int]:
        """The sides of ``multiscale`` in pixels: that of the training, and about a twelfth smaller and larger."""
        size = self.card.image_size
        step = max(1, round(size / 12 / _GRID)) * _GRID
        return size - step, size, size + step

    def use_tta(self, tta: Tta | None) -> None:
        """Set the test-time augmentation; None keeps the current one.

        Raises:
            UserError: ``multiscale`` for a model with a fixed image size, such as MiVOLO.
        """
        self.tta = tta or self.tta
        if self.tta != "multiscale":
            return
        black = torch.zeros(1, 3, self.card.image_size, self.card.image_size, dtype=torch.uint8, device=self.device)
        try:
            with torch.inference_mode():
                self(Images.of(black), Images.of(black))
        except (AssertionError, RuntimeError):  # of timm's patches, and of MiVOLO's positions
            sides = ", ".join(map(str, self.scales))
            raise UserError(
                f"--tta multiscale: {self.card.model['name']} does not take images of {sides} px; give flip or none"
            ) from None

    def _outputs_with_mirrored(self, images: dict[str, Images], batch: int) -> dict[str, Tensor]:
        mirrored = {name: packed._replace(pixels=packed.pixels.flip(-1)) for name, packed in images.items()}
        return self.mean_of_mirrored(self._outputs(images, batch), self._outputs(mirrored, batch))

    def mean_of_mirrored(self, outputs: dict[str, Tensor], flipped: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean of the raw outputs for images and mirror images; ``mirror: negate`` tasks are negated for the
        latter."""
        flipped = flipped | {name: -flipped[name] for name in negated_tasks(self.tasks)}
        return {name: (answer + flipped[name]) / 2 for name, answer in outputs.items()}

    def _outputs(self, images: dict[str, Images], batch: int) -> dict[str, Tensor]:
        images = images | {name: self._normalised(name, images[name]) for name in self.inputs}
        features = self.model(images["face"], images["body"], batch)
        subnet_features = {name: subnet(features) for name, subnet in self.subnets.items()}
        outputs = {task.name: self.heads[task.name](subnet_features[task.subnet_name]) for task in self.tasks}
        if self.training:
            outputs |= {name: centres(outputs[name]) for name, centres in self.centres.items()}
        if self.gender_head is not None:
            outputs["gender"] = self.gender_head(subnet_features["gender"])
        if self.projection is not None:
            outputs["projection"] = self.projection(self.model.pooled(subnet_features["age"]))
        outputs = {"age": self.method(subnet_features["age"]), **outputs}
        # in training a batch of one image is computed as two, see models.missing
        if len(self.inputs) == 1 and (self.training or images[self.inputs[0]].rows.shape[0] != batch):
            rows = images[self.inputs[0]].rows
            outputs = {name: scatter(answer, rows, batch) for name, answer in outputs.items()}
        return outputs

    def estimate(self, output: dict[str, Tensor]) -> tuple[AgeEstimate, Tensor | None]:
        """Ages in years and (B, 2) probabilities over ``GENDERS``, or None without gender."""
        logits, estimate = self.gender_logits(output), self.method.estimate(output["age"])
        if not isinstance(estimate, AgeEstimate) or estimate.age.ndim != 1:
            raise interface_error(
                f"{type(self.method).__name__}.estimate gives no AgeEstimate of one age a sample, (B,)"
            )
        return estimate, None if logits is None else logits.softmax(dim=1)

    def gender_logits(self, output: dict[str, Tensor]) -> Tensor | None:
        """(B, 2) float32 logits over ``GENDERS`` with the calibrated temperature, or None without gender."""
        if not self.card.gender:
            return None
        return output["gender"].float() / self.card.calibration.get("gender_temperature", 1.0)

    def save(self, folder: Path | str, weights: dict[str, Tensor] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.yaml``, without what only training needs.

        Args:
            folder: created if it is missing.
            weights: the full state dict, if the parameters are sharded over processes.

        Raises:
            UserError: the files cannot be written, or a weight is not finite.
        """
        folder = Path(folder)
        weights = self.state_dict() if weights is None else weights
        unneeded = _TRAINING_ONLY if self.card.gender else (*_TRAINING_ONLY, GENDER_HEAD)
        names = [name for name in weights if not name.startswith(unneeded)]
        inference_weights = {name: weights[name].contiguous() for name in names}
        require_finite(inference_weights, folder)
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            save_tensors(inference_weights, folder / MODEL_FILE)
        self.card.save(folder)

    def fingerprint(self) -> str:
        """A digest of its card and its weights."""
        digest = sha256(repr(self.card).encode())
        for name, tensor in self.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @classmethod
    def load(cls, folder: Path | str) -> "Estimator":
        """Read what ``save`` wrote, in evaluation mode. Processes that are forked later compute with one thread.

        Args:
            folder: a run's folder (its ``best``), ``best``, a checkpoint (its EMA weights if any), a converted
                checkpoint, ``hf://user/name[@revision]``, or ``default``, the package's own.

        Raises:
            UserError: it is missing, damaged, or inconsistent.
        """
        fork_with_one_thread()
        folder = locate(folder)
        require_files(folder, MODEL_FILE, CARD_FILE)
        estimator = cls.from_card(Card.load(folder).from_nothing(), folder / CARD_FILE)
        estimator.load_weights(folder)
        return estimator.eval()

    @classmethod
    def from_card(cls, card: Card, path: Path) -> "Estimator":
        """Build the estimator of a card. Raises UserError, with the file's name, if that is not possible."""
        try:
            # files of older versions lack newer options of tasks
            return cls(replace(card, tasks=[asdict(task) for task in read_tasks(card.tasks)]))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except Exception as error:  # exceptions of timm, torch or a method for invalid options
            raise UserError(f"{path}: describes no model that can be built: {first_line(error)}") from None

    def load_weights(self, folder: Path | str, fresh: tuple[str, ...] = ()) -> None:
        """Load the weights that ``save`` wrote, except those of tasks that this estimator lacks.

        Weights that only training needs are not changed.

        Args:
            folder: as for ``load``.
            fresh: prefixes of other weights to keep.

        Raises:
            UserError: they are missing, damaged, or of another estimator.
        """
        folder = locate(folder)
        require_files(folder, MODEL_FILE)
        path = weights_file(folder)
        loss_buffers = tuple(f"method.{name}" for name in self.method.loss_buffers)
        unchanged = (*_TRAINING_ONLY, *loss_buffers, *fresh)
        current = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(unchanged)}
        weights = read_weights(path).items()
        loaded = {name: tensor for name, tensor in weights if self._is_needed(name) and not name.startswith(fresh)}
        load_exactly(self, loaded | current, path)

    def _is_needed(self, weight: str) -> bool:
        """Whether a weight belongs to this estimator, and not to a head or subnet that it lacks."""
        module, _, path = weight.partition(".")
        if f"{module}." in _TRAINING_ONLY or f"{module}." == GENDER_HEAD and self.gender_head is None:
            return False
        return module not in ("subnets", "heads") or path.partition(".")[0] in getattr(self, module)

    def _normalised(self, name: str, images: Images) -> Images:
        pixels = self.normalise[name](images.pixels)
        return images._replace(pixels=pixels if self.channels_last else pixels.contiguous())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises UserError if it is damaged or has a number that is not finite."""
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path}: damaged, or no safetensors file ({first_line(error)}); copy or train it again"
        ) from None
    require_finite(weights, path)
    return weights


def _plain_name(value: Any) -> Any:
    """The architecture of a backbone from the hub or a folder; other values are unchanged."""
    return architecture_of(value) if isinstance(value, str) else value
