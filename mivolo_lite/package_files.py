"""Configurations and launch files that come with the package."""

import shutil
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.wording import did_you_mean

PREFIX = "pkg:"
"""Prefix of the package's configurations, as in ``--config pkg:utkface``."""


def package_folder(name: str) -> Path:
    """``configs`` or ``launch``, in the installed package or in the clone."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def package_configs() -> list[str]:
    """Names of the package's configurations, such as ``methods/coral``."""
    folder = package_folder("configs")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def package_config(name: str, option: str = "--config") -> Path:
    """The file of a configuration by its name, with or without ``.yaml``. Raises UserError, which names the option, for
    an unknown one."""
    name, names = name.removesuffix(".yaml"), package_configs()
    if name not in names:
        hint = did_you_mean(name, names, otherwise=f"there are {', '.join(names)}")
        raise UserError(f"{option} {PREFIX}{name}: the package has no such configuration{hint}")
    return package_folder("configs") / f"{name}.yaml"


def copy_launch_files(folder: Path) -> list[Path]:
    """Copy ``launch/`` to a new or existing folder.

    Returns:
        the files that were written.

    Raises:
        UserError: a file of the same name exists. Nothing is copied then.
    """
    source = package_folder("launch")
    names = sorted(
        path.relative_to(source) for path in source.rglob("*") if path.suffix in (".yaml", ".sbatch", ".sh", ".py")
    )
    existing = next((folder / name for name in names if (folder / name).exists()), None)
    if existing is not None:
        raise UserError(f"launch-files: {existing} is there already; remove it, or name another folder")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    return [folder / name for name in names]
