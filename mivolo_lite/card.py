"""The card of an estimator, ``model.yaml``: everything needed to rebuild it, parsed strictly."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

import yaml

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.files import write_text
from mivolo_lite.hub import local_copy
from mivolo_lite.labels import MAX_AGE, MIN_AGE
from mivolo_lite.old_names import current_file
from mivolo_lite.package_files import package_folder
from mivolo_lite.yaml_file import parse_yaml

DEFAULT = "default"
"""The address of the package's own checkpoint."""
MODEL_FILE, CARD_FILE = "model.safetensors", "model.yaml"
NO_AGES = "The model learnt no ages: those that it gives are random."
JOINT = " + "
"""Separator of the digests of several data sets."""
Tta = Literal["none", "flip", "multiscale"]
"""Test-time augmentation, see ``Estimator.tta``."""
HUB_CONFIG_FILE = "config.json"
"""Beside ``MODEL_FILE`` in models of transformers, such as MiVOLO v2 on the hub."""

EMA_FILE = "ema.safetensors"
"""A checkpoint's EMA weights, which take precedence."""

_MOST_BYTES, _LARGEST = 1 << 20, 1 << 16
"""Limits of a card's bytes and integer options, so that a damaged card does not take all memory."""


@dataclass
class Card:
    """Everything needed to rebuild an estimator, and its provenance.

    Attributes:
        model, method: their names and options.
        span: the ages it covers.
        image_size: side of its square images in pixels.
        normalisation: ``mean`` and ``std`` of the three channels, of images in [0, 1]; the model's own where empty.
        crop_policy: how the crops it was trained on were made.
        data_digest: of the shards it was trained on.
        metrics: on its validation data.
        tasks: outputs in addition to age and gender, each as the fields of a ``Task``.
        calibration: age intervals and the temperature of the gender, from ``calibrate``; empty before that.
        tta: default test-time augmentation, see ``Estimator``.
        age: whether it learnt ages; otherwise its ages are random.
        gender: whether it estimates the gender.
        licence: of the weights, as stated by their source; empty if unknown.
        attribution: required when the weights, or others trained from them, are redistributed.
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
    tta: Tta = "none"
    age: bool = True
    gender: bool = True
    licence: str = ""
    attribution: str = ""

    @property
    def models(self) -> list[dict[str, Any]]:
        """Name and options of its model, or of each model of an ensemble."""
        return self.model.get("members") or [self.model]

    @property
    def architecture(self) -> str:
        """The model with its backbones, as ``single resnet18`` or ``ensemble of 2 x single resnet18, single vit``."""
        counts = Counter(
            " ".join(str(model[name]) for name in ("name", "backbone", "face", "body") if model.get(name))
            for model in self.models
        )
        listed = ", ".join(f"{count} x {words}" if count > 1 else words for words, count in counts.items())
        return f"{self.model['name']} of {listed}" if "members" in self.model else listed

    def from_nothing(self) -> "Card":
        """The card without initial weights, which may no longer be available."""
        sources: dict[str, Any] = {name: None for name in self.model if name.endswith("weights")}
        sources |= {name: False for name in self.model if name == "pretrained"}
        return replace(self, model=self.model | sources)

    def to_share(self) -> "Card":
        """The card for publication: with ``short_folder`` of the training data, and without the files of initial
        weights."""
        policy: dict[str, Any] = {}
        for name, rules in self.crop_policy.items():
            short = short_folder(name) if isinstance(rules, dict) else name
            policy[f"{short} {len(policy) + 1}" if short in policy else short] = rules
        digests = JOINT.join(_without_address(digest) for digest in self.data_digest.split(JOINT))
        return replace(self.from_nothing(), crop_policy=policy, data_digest=digests)

    def save(self, folder: Path | str) -> None:
        """Write ``model.yaml`` atomically."""
        write_text(Path(folder) / CARD_FILE, yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True))

    @classmethod
    def load(cls, folder: Path | str) -> "Card":
        """Read ``model.yaml``. Raises UserError if it is missing or invalid."""
        path = Path(folder) / CARD_FILE
        values = _read_card(path)
        names = {option.name for option in fields(cls)}
        needed = {option.name for option in fields(cls) if option.default is option.default_factory is MISSING}
        if absent := needed - set(values):
            raise UserError(f"{path}: has no {' and no '.join(sorted(absent))}; give the `best` folder of a run")
        if surplus := [name for name in values if name not in names]:
            raise UserError(f"{path}: {', '.join(surplus[:5])}: not known to this version; update the package")
        for name, (fits, expected) in _EXPECTED.items():
            if name in values and not fits(values[name]):
                raise UserError(f"{path}: {name} must be {expected}, not {str(values[name])[:50]!r}")
        return cls(**values)


def _without_address(digest: str) -> str:
    """The digest; that of a stream, which is its address, as its ``short_folder``."""
    kind, stream, address = digest.partition("stream:")
    return kind + stream + short_folder(address) if stream else digest


def short_folder(folder: str) -> str:
    """The last two parts of a folder's path or URL, without private parts."""
    return "/".join(PurePath(folder.rstrip("/")).parts[-2:])


def require_files(folder: Path | str, *names: str) -> None:
    """Raise UserError if a folder lacks any of these files."""
    folder = Path(folder)
    if (folder / HUB_CONFIG_FILE).is_file() and not (folder / CARD_FILE).is_file():
        raise UserError(f"{folder}: is a model in the layout of the hub; `mivolo-lite convert {folder} OUT` first")
    for name in names:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: no {name} here; give a run's folder, its `best`, one of its checkpoints, or a converted "
                "checkpoint"
            )


def locate(folder: Path | str) -> Path:
    """The folder of the card: ``best`` of a run's folder, the local copy of an address on the hub, or the package's own
    for ``default``; a folder of that name is ``./default``."""
    folder = package_folder("weights") if str(folder) == DEFAULT else local_copy(folder)
    return folder / "best" if (folder / "best").is_dir() and not (folder / CARD_FILE).exists() else folder


def weights_file(folder: Path) -> Path:
    """The weights file of a folder: EMA weights if there are any."""
    ema = current_file(folder, EMA_FILE)
    return ema if ema.is_file() else folder / MODEL_FILE


def _read_card(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: larger than any card is")
        values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {first_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: is no card of a model; give the `best` folder of a run")
    return values


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_options(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    return all(type(item) is not int or abs(item) <= _LARGEST for item in value.values())


def _is_span(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= {"min_age", "max_age"}:
        return False
    low, high = value.get("min_age", MIN_AGE), value.get("max_age", MAX_AGE)
    return _is_whole(low, MIN_AGE, MAX_AGE) and _is_whole(high, MIN_AGE, MAX_AGE) and low < high


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_normalisation(value: Any) -> bool:
    if value == {}:
        return True
    if not isinstance(value, dict) or set(value) != {"mean", "std"}:
        return False
    are_lists = all(isinstance(channels, list) and len(channels) == 3 for channels in value.values())
    return are_lists and all(map(_is_number, value["mean"] + value["std"])) and min(value["std"]) > 0


def _is_calibration(value: Any) -> bool:
    if value == {}:
        return True
    if not isinstance(value, Mapping) or not {"level", "by", "radius", "radii", "gender_temperature"} <= set(value):
        return False
    scalars = [value["level"], value["radius"], value["gender_temperature"]]
    radii = value["radii"]
    return (
        all(_is_number(scalar) and scalar >= 0 for scalar in scalars)
        and value["gender_temperature"] > 0
        and isinstance(value["by"], str)
        and isinstance(radii, dict)
        and all(_is_number(radius) and radius >= 0 for radius in radii.values())
    )


def _is_tasks(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(task, dict) and "name" in task for task in value)


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_options, "a name with its options"),
    "method": (_is_options, "a name with its options"),
    "span": (_is_span, f"min_age and max_age in whole years from {MIN_AGE} to {MAX_AGE}"),
    "image_size": (lambda value: _is_whole(value, 1, 4096), "a number of pixels from 1 to 4096"),
    "normalisation": (_is_normalisation, "three numbers of mean and three of std, above 0"),
    "crop_policy": (lambda value: isinstance(value, dict), "a mapping"),
    "data_digest": (lambda value: isinstance(value, str), "text"),
    "metrics": (lambda value: isinstance(value, dict), "a mapping"),
    "tasks": (_is_tasks, "a list of tasks, each with a name"),
    "calibration": (_is_calibration, "what `mivolo-lite calibrate` writes"),
    "licence": (lambda value: isinstance(value, str), "text"),
    "attribution": (lambda value: isinstance(value, str), "text"),
    "age": (lambda value: isinstance(value, bool), "true or false"),
    "gender": (lambda value: isinstance(value, bool), "true or false"),
    "tta": (lambda value: value in list(get_args(Tta)), "none, flip or multiscale"),
}
