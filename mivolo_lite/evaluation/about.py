"""Facts about a model and a data set for reports, and reasons why errors may not measure the model."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mivolo_lite.card import NO_AGES, Card, locate
from mivolo_lite.credentials import without_credentials
from mivolo_lite.lineage import data_digest, lineage, run_config, shares_samples
from mivolo_lite.loading.config import DataSetConfig
from mivolo_lite.paths import is_url
from mivolo_lite.shards.framing import framing_of, is_whole_face, policies_of
from mivolo_lite.shards.index import ShardIndex

DOUBTS = ("trained_on", "framing", "no_ages")
"""Names of the ``doubts``."""
TRAINED_ON = "The model was trained on these images, so its errors on others are larger."
_OTHER_TTA = "The estimates are with --tta {}, others are not; a comparison of models takes the same --tta of all."

_SHORT = 12
"""Characters of a digest that are shown."""


def about_model(checkpoint: Path | str, card: Card) -> dict[str, str]:
    """Facts by name: checkpoint, model, method, image size and training data."""
    return {
        "Checkpoint": without_credentials(str(checkpoint)),
        "Model": card.architecture,
        "Method": str(card.method["name"]),
        "Image size": f"{card.image_size} px",
        "Training data": training_data(checkpoint, card),
    }


def about_data(folder: str, digest: str, samples: int) -> str:
    """A data set in a few words."""
    return f"{without_credentials(folder)} ({samples:,} samples, digest {digest[:_SHORT]})"


def training_data(checkpoint: Path | str, card: Card) -> str:
    """The training folders in the run's ``config.yaml``, if it is next to the checkpoint, and the digest."""
    folders, digest = ", ".join(trained_on(locate(checkpoint))), card.data_digest[:_SHORT]
    if not digest:
        return folders
    return f"{folders} (digest {digest})" if folders else f"digest {digest}"


def was_trained_on(checkpoint: Path | str, data: Path | str, index: ShardIndex) -> bool:
    """Whether a model, its ``init_from`` or one of its teachers was trained on samples of a folder.

    Args:
        checkpoint: of the model.
        data: the folder, or its URL. Another index of it may have another digest, so the run's configuration is
            compared as well.
        index: of the samples that are read.
    """
    folders, folds = lineage(checkpoint), index.folds
    if any(shares_samples(data_digest(folder), index) for folder in folders):
        return True
    learnt = [train_set for folder in folders for train_set in training_sets(folder)]
    return any(
        _real(train_set.path) == _real(str(data))
        and (train_set.folds is None or folds is None or not set(train_set.folds).isdisjoint(folds))
        for train_set in learnt
    )


def doubts(
    checkpoint: Path | str, card: Card, data: Path | str, index: ShardIndex, images: Sequence[str]
) -> dict[str, Any]:
    """Reasons why the errors on a data set do not measure the model, by their names in ``metrics.json``.

    Args:
        checkpoint, card: the model.
        data, index: the samples, as for ``was_trained_on``.
        images: the inputs that the model gets.
    """
    reasons = {
        "trained_on": was_trained_on(checkpoint, data, index),
        "framing": framed_otherwise(card, index.info["crop_policy"]) if "face" in images else "",
        "no_ages": not card.age,
    }
    return {name: reason for name, reason in reasons.items() if reason}


def cautions(data: Mapping[str, Any]) -> list[str]:
    """The ``doubts`` in a data set's description in ``metrics.json``, as sentences."""
    sentences = [NO_AGES] if data.get("no_ages") else []
    sentences += [TRAINED_ON] if data.get("trained_on") else []
    return sentences + ([data["framing"]] if data.get("framing") else [])


def cautions_by_name(evaluations: Sequence[tuple[str, Mapping[str, Any], str]]) -> list[str]:
    """Sentences on what makes a comparison of evaluations unfair, each after the names of those that it is true of.

    Args:
        evaluations: of each its name, the ``doubts``, and its test-time augmentation, see ``Estimator``.
    """
    named = [(name, sentence) for name, data, _ in evaluations for sentence in cautions(data)]
    if len({tta for *_, tta in evaluations}) > 1:
        named += [(name, _OTHER_TTA.format(tta)) for name, _, tta in evaluations if tta != "none"]
    names_by_sentence: dict[str, dict[str, None]] = {}
    for name, sentence in named:
        names_by_sentence.setdefault(sentence, {})[name] = None  # once, also of several inputs
    return [f"{', '.join(names)}: {sentence}" for sentence, names in names_by_sentence.items()]


def framed_otherwise(card: Card, crop_policy: Mapping[str, Any]) -> str:
    """A sentence if a data set frames its faces differently from all training data of the model; else empty."""
    policies, shown = policies_of(card.crop_policy), framing_of(crop_policy)
    learnt = [framing for policy in policies if (framing := framing_of(policy)) is not None]
    if shown is None or not learnt or len(learnt) < len(policies) or any(map(shown.is_like, learnt)):
        return ""
    sentence = f"Faces are framed by {shown} here; the model learnt from {learnt[0]}. That enlarges its errors."
    if is_whole_face(crop_policy):
        return sentence
    options = f"--face_square {learnt[0].square:g} --face_shift {learnt[0].shift:g}"
    return f"{sentence} Pack the photos with {options}."


def _real(address: str) -> str:
    """The real path of a folder; a URL unchanged."""
    return address.rstrip("/") if is_url(address) else os.path.realpath(address)


def trained_on(folder: Path) -> list[str]:
    """The paths of the training data of ``RUN/best`` or ``RUN/checkpoints/NAME``, see ``training_sets``."""
    return [without_credentials(train_set.path) for train_set in training_sets(folder)]


def training_sets(folder: Path) -> list[DataSetConfig]:
    """The training data of ``RUN/best`` or ``RUN/checkpoints/NAME`` by the configuration in ``RUN``.

    Empty for other folders, or if the configuration cannot be read.
    """
    try:
        return DataSetConfig.read_list(run_config(folder)["data"]["train"])
    except (LookupError, TypeError, ValueError):
        return []
