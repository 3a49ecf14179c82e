"""What a page says of a model: how it was built, and on what it was trained."""

from pathlib import Path

from mivolo_lite.card import Card, locate
from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError
from mivolo_lite.yaml_file import read_yaml_file

_SHORT = 12
"""Characters of a digest that are shown."""


def about_model(checkpoint: Path | str, card: Card) -> dict[str, str]:
    """Facts by name: checkpoint, model, method, image size and training data."""
    return {
        "Checkpoint": without_credentials(str(checkpoint)),
        "Model": " ".join(
            str(card.model[name]) for name in ("name", "backbone", "face", "body") if card.model.get(name)
        ),
        "Method": str(card.method["name"]),
        "Image size": f"{card.image_size} px",
        "Training data": training_data(checkpoint, card),
    }


def about_data(folder: str, digest: str, samples: int) -> str:
    """A data set in a few words."""
    return f"{without_credentials(folder)} ({samples:,} samples, digest {digest[:_SHORT]})"


def training_data(checkpoint: Path | str, card: Card) -> str:
    """The folders that ``config.yaml`` of the run names, where that lies next to the checkpoint, and the digest."""
    known = (", ".join(_trained_on(locate(checkpoint))), card.data_digest and f"digest {card.data_digest[:_SHORT]}")
    return " ".join(f"({words})" if place and known[0] else words for place, words in enumerate(known) if words)


def _trained_on(folder: Path) -> list[str]:
    """Of ``RUN/best`` and of ``RUN/checkpoints/NAME``; none where the configuration cannot be read."""
    for run in folder.absolute().parents[:2]:
        path = run / "config.yaml"
        try:
            train = read_yaml_file(path, "")["data"]["train"]
        except (UserError, LookupError, TypeError):
            continue
        sets = train if isinstance(train, list) else [train]
        return [without_credentials(str(each["path"] if isinstance(each, dict) else each)) for each in sets]
    return []
