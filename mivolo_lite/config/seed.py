"""The seed of a run in the paths of models that it learns from."""

from typing import Any

from mivolo_lite.config.schema import source_of
from mivolo_lite.errors import UserError
from mivolo_lite.training.options import TrainConfig

_SEED = "{seed}"


def fill_in_seed(values: dict[str, Any], origin: dict[str, str]) -> None:
    """Replace ``{seed}`` by ``train.seed`` in ``init_from``, ``optim.teachers`` and the model's weights.

    Raises:
        UserError: ``run`` has such a field.
    """
    if _SEED in str(values.get("run")):
        raise UserError(
            f"{source_of('run', origin)}: run: {_SEED} is for init_from, optim.teachers and weights; "
            "`mivolo-lite seeds` makes a folder for each seed"
        )
    seed = str(values.get("train", {}).get("seed", TrainConfig.seed))
    model = values.get("model", {})
    weights = [(model, option) for option in model if option.endswith("weights")]
    for section, option in [(values, "init_from"), (values.get("optim", {}), "teachers"), *weights]:
        if option in section:
            section[option] = _filled(section[option], seed)


def _filled(value: Any, seed: str) -> Any:
    if isinstance(value, list):
        return [_filled(item, seed) for item in value]
    return value.replace(_SEED, seed) if isinstance(value, str) else value
