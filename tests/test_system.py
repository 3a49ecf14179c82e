"""Windows and macOS: one module asks for what they lack of Linux, and the commands run without that.

This file runs on both of them.
"""

import ast
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from torch.overrides import TorchFunctionMode

from mivolo_lite import system
from mivolo_lite.cli.entry import COMMANDS
from mivolo_lite.evaluation.short_names import distinct_labels
from mivolo_lite.inference import sources
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.sources import Item
from mivolo_lite.paths import expand_pattern, is_url
from tests.inference.scenes import RedSquares, photo, tiny_estimator
from tests.lacking import MODULES, NAMES

PACKAGE = Path(system.__file__).parent
POSIX_ALONE = {
    "shards/cache.py": "refuses Windows, which cannot rename or remove an open file",
}
"""Modules that Windows imports and does not call."""


def names_lacking(path: Path) -> list[str]:
    """``os.pread, line 3`` and the like, that a module uses without asking ``hasattr``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    asked = {
        node.args[1].value
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr"
        if isinstance(node.args[1], ast.Constant)
    }
    imported = [(alias.name, node) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    attributes = [
        (node.value.id, node.attr, node)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    lacking = [(name, node) for name, node in imported if name in MODULES]
    lacking += [
        (f"{module}.{name}", node)
        for module, name, node in attributes
        if name in NAMES.get(module, ()) and name not in asked
    ]
    return [f"{name}, line {node.lineno}" for name, node in lacking]


def run_as_on_windows(*commands: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-m", "tests.windows", json.dumps(commands)],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        cwd=PACKAGE.parent,
    )


def test_one_module_uses_what_windows_lacks():
    modules = {path.relative_to(PACKAGE).as_posix(): names_lacking(path) for path in PACKAGE.rglob("*.py")}
    users = {module: names for module, names in modules.items() if names}
    assert users.keys() == {"system.py", *POSIX_ALONE}, users


@pytest.fixture
def photos(tmp_path):
    """A folder with two photos, the second of a name that cp1252 lacks."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "Ωμέγα.jpg")):
        image = cv2.cvtColor(photo((40 + 20 * number, 50, 80), seed=number), cv2.COLOR_RGB2BGR)
        (folder / name).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    return folder


@pytest.mark.slow
def test_help_of_every_command_as_on_windows():
    done = run_as_on_windows(*([name, "--help"] for name in COMMANDS))
    assert done.returncode == 0, done.stderr.decode()
    assert [line for line in done.stdout.decode().splitlines() if line.startswith("done: ")] == [
        f"done: {name}" for name in COMMANDS
    ]


@pytest.mark.slow
def test_photos_are_estimated_as_on_windows(photos, tmp_path):
    tiny_estimator().save(tmp_path / "best")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,face_x0,face_y0,face_x1,face_y1\na.jpg,40,50,120,130\nΩμέγα.jpg,60,50,140,130\n", "utf-8")
    options = ["--checkpoint", f"{tmp_path}/best", "--boxes", str(boxes)]
    done = run_as_on_windows(
        ["predict", f"{photos}/*.jpg", *options],
        ["predict", str(photos), "--out", f"{tmp_path}/out", "--draw", *options],
        PYTHONIOENCODING="cp1252",
    )
    assert done.returncode == 0, done.stderr.decode()
    first, second, *rest = done.stdout.decode("cp1252").splitlines()
    assert "a.jpg at 40, 50, 120, 130: " in first and r"\u03a9\u03bc\u03ad\u03b3\u03b1.jpg at 60" in second
    assert "2 rows, 0 rejected" in rest
    assert len(list((tmp_path / "out" / "annotated").iterdir())) == 2


@pytest.mark.slow
def test_data_and_models_are_made_and_evaluated_as_on_windows(tmp_path):
    for seed in range(2):
        tiny_estimator("both", seed).save(tmp_path / f"best{seed}")
    checkpoint, data, out = f"{tmp_path}/best0", f"{tmp_path}/people", f"{tmp_path}/out"
    done = run_as_on_windows(
        ["pack", "people", "--count", "24", "--split", "train=0.5,val=0.5", "--workers", "2", "--out", data],
        ["index", f"{data}/val"],
        ["audit", f"{data}/[tv]*", "--workers", "2", "--out", f"{out}/audit"],
        ["evaluate", "--checkpoint", checkpoint, "--data", f"{data}/val", "--workers", "1", "--out", f"{out}/first"],
        ["soup", f"{tmp_path}/best*", "--out", f"{tmp_path}/soup"],
        ["ensemble", f"{tmp_path}/best*", "--out", f"{tmp_path}/ensemble"],
        ["calibrate", "--checkpoint", checkpoint, "--data", f"{data}/train"],
        ["evaluate", "--checkpoint", checkpoint, "--data", f"{data}/val", "--workers", "0", "--out", f"{out}/second"],
        ["compare", f"{out}/first", f"{out}/second", "--out", f"{out}/comparison"],
        ["predict", f"{data}/val", "--checkpoint", checkpoint, "--out", f"{out}/predictions"],
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().count("done: ") == 10


def test_a_name_has_one_separator_on_every_system(monkeypatch):
    monkeypatch.setattr(sources.os, "sep", "\\")
    assert Item("image", "photos\\more\\a.jpg").name == "photos/more/a.jpg"


def test_the_name_of_an_annotated_photo_is_one_on_every_system():
    assert Item("image", "https://host/10:30 <b>*.jpg?key=x").annotated_name(7, ".jpg") == "000007-10_30 _b__.jpg"


def test_a_drive_is_no_url():
    assert not is_url("C://photos/a.jpg") and is_url("s3://bucket/a") and is_url("simplecache::https://host/a")


def test_patterns_are_expanded_in_order_but_not_the_names_of_files(tmp_path):
    for name in ("b.jpg", "a.jpg", "deeper/c.jpg", "[ab].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand_pattern(str(tmp_path / "?.jpg")) == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    assert expand_pattern(str(tmp_path / "**" / "c.jpg")) == [str(tmp_path / "deeper" / "c.jpg")]
    for name in (str(tmp_path / "[ab].jpg"), str(tmp_path / "*.png"), "s3://bucket/*.jpg"):
        assert expand_pattern(name) == [name]


def test_what_lies_in_a_folder_that_matches_comes_with_it_alone(tmp_path):
    (tmp_path / "deeper" / "and").mkdir(parents=True)
    (tmp_path / "deeper" / "and" / "a.jpg").touch()
    (tmp_path / "deeper-still").touch()
    assert [Path(name) for name in expand_pattern(str(tmp_path / "**"))] == [tmp_path]
    assert expand_pattern(str(tmp_path / "d**")) == [str(tmp_path / "deeper"), str(tmp_path / "deeper-still")]
    assert expand_pattern(str(tmp_path / "**" / "a*")) == [str(tmp_path / "deeper" / "and")]


def test_a_pattern_names_folders_that_cannot_be_listed(tmp_path, monkeypatch, capsys):
    def scandir(path):
        if Path(os.fsdecode(path)) == locked:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    listed, locked = os.scandir, tmp_path / "locked"
    locked.mkdir()
    (tmp_path / "a.jpg").touch()
    monkeypatch.setattr(os, "scandir", scandir)
    assert expand_pattern(str(tmp_path / "**" / "*.jpg")) == [str(tmp_path / "a.jpg")]
    assert f"{locked}{os.sep}, which cannot be listed: Permission denied" in capsys.readouterr().err


def test_space_is_reserved_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    monkeypatch.delattr(system.os, "posix_fallocate", raising=False)
    with open(tmp_path / "file", "w+b") as file:
        system.reserve(file.fileno(), 3 * 2**20 // 2)
        assert os.fstat(file.fileno()).st_size == 3 * 2**20 // 2


class HostAlone(TorchFunctionMode):
    """Apple's GPUs have no float64: only tensors that were copied to the host may be of that type."""

    def __init__(self):
        super().__init__()
        self.on_host: list[torch.Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.Tensor.cpu:
            self.on_host.append(result)
        elif isinstance(result, torch.Tensor) and result.dtype is torch.float64:
            assert any(argument is tensor for argument in args for tensor in self.on_host), function
        return result


def test_no_float64_where_a_device_may_lack_it():
    predictor = Predictor(tiny_estimator(), RedSquares())
    with HostAlone():
        assert predictor.predict(photo((40, 50, 80)))[0][0].age is not None


def test_evaluations_have_short_names_on_windows_too():
    assert distinct_labels([r"runs\one\evaluation", r"runs\two\evaluation"]) == ["one", "two"]


def test_one_process_has_a_lock_and_it_ends_with_the_file(tmp_path):
    script = "import sys; from mivolo_lite.system import try_lock; print(try_lock(open(sys.argv[1], 'ab')))"

    def is_free():
        command = [sys.executable, "-c", script, str(tmp_path / "lock")]
        return (
            subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout == "True\n"
        )

    with open(tmp_path / "lock", "ab") as file:
        assert system.try_lock(file) and not is_free()
    assert is_free()
    file = open(tmp_path / "lock", "ab")
    system.remove_locked(file, tmp_path / "lock")
    assert file.closed and not (tmp_path / "lock").exists()
