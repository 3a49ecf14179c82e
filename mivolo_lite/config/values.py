"""Typed values from YAML and the command line."""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from mivolo_lite.config.from_checkpoint import checkpoint_path
from mivolo_lite.config.schema import source_of, suggest, types_of
from mivolo_lite.errors import UserError
from mivolo_lite.loading.config import DataSetConfig
from mivolo_lite.option_values import check_value
from mivolo_lite.paths import expand_path, local_path
from mivolo_lite.tasks import Task, check_tasks
from mivolo_lite.training.run_config import RunConfig


def build_value(kind: Any, value: Any, key: str, origin: dict[str, str]) -> Any:
    """The value of an option, or of all options of a section. Errors name the file and the key."""
    try:
        if is_dataclass(kind):
            types = types_of(kind)
            options = {
                name: build_value(types[name], option, f"{key}.{name}", origin) for name, option in value.items()
            }
            return _checked(kind, **options)
        if kind == list[Task] and isinstance(value, list):
            tasks = [_task(entry, f"{key}[{index}]", origin) for index, entry in enumerate(value)]
            return _checked(check_tasks, tasks)
        if kind == list[DataSetConfig] | str and isinstance(value, list | dict):
            return DataSetConfig.read_list(value)
        if kind == DataSetConfig | str and isinstance(value, dict):
            return DataSetConfig.read(value)
        return check_value(kind, value)
    except ValueError as error:
        named = str(error).partition(":")[0]  # the option, for a section's own checks
        source = f"{origin[named]}" if named in origin else f"{source_of(key, origin)}: {key}"
        raise UserError(f"{source}: {error}") from None


def _task(entry: Any, key: str, origin: dict[str, str]) -> Task:
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r:.60} is not a task; give {{name: NAME, option: value}}")
    types = types_of(Task)
    for option in entry:
        if option not in types:
            raise ValueError(f"{option!r:.60} is not an option of a task{suggest(option, types)}")
    if "name" not in entry:
        raise ValueError("a task has no name; give {name: NAME, option: value}")
    return build_value(Task, entry, key, origin)


def _checked(make: Any, *arguments: Any, **options: Any) -> Any:
    """The object made of several options. Raises ValueError if they contradict each other."""
    try:
        return make(*arguments, **options)
    except UserError as error:
        raise ValueError(*error.args) from None


def expand_paths(config: RunConfig, origin: dict[str, str]) -> None:
    """Expand ``~`` and ``$VARIABLES`` in paths. Raises UserError for a URL where a local path is required."""

    def expand(holder: Any, option: str, key: str, how: Callable[[str, str], str]) -> None:
        value = getattr(holder, option)
        if isinstance(value, str) and value:
            object.__setattr__(holder, option, how(value, f"{source_of(key, origin)}: {key}"))

    expand(config, "run", "run", local_path)
    expand(config, "init_from", "init_from", checkpoint_path)
    where = f"{source_of('optim.teachers', origin)}: optim.teachers"
    config.optim.teachers = [checkpoint_path(folder, where) for folder in config.optim.teachers]
    expand(config.data.cache, "folder", "data.cache.folder", local_path)
    data_sets = config.data.train_sets if isinstance(config.data.train, list) else []
    for holder, option, key in [
        (config.data, "train", "data.train"),
        (config.data, "val", "data.val"),
        (config.data, "exclude", "data.exclude"),
        *((data_set, "path", "data.train") for data_set in data_sets),
        *((data_set, "path", "data.val") for data_set in [config.data.val] if isinstance(data_set, DataSetConfig)),
    ]:
        expand(holder, option, key, expand_path)
    for option in types_of(type(config.model)):
        if option.endswith("weights"):
            expand(config.model, option, f"model.{option}", local_path)
