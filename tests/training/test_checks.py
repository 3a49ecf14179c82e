"""What would end a run later is an error before its first step: no room, and folders that a rank does not see."""

import shutil
from collections import namedtuple
from types import SimpleNamespace

import pytest

from mivolo_lite.card import Card
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.training import checks
from mivolo_lite.training.run_folder import RunFolder

MIB = 2**20
FILES = ["--config", "pkg:utkface", "--run", "x"]


@pytest.fixture
def shared_memory(monkeypatch):
    monkeypatch.setattr(checks, "free_shared_memory", lambda: 64 * MIB)


def test_batches_of_all_processes_must_fit_into_shared_memory(shared_memory):
    checks.require_shared_memory(16 * MIB, processes=4)
    with pytest.raises(UserError, match="batches of 5 processes need 80 MiB of shared memory, 64 MiB are free"):
        checks.require_shared_memory(16 * MIB, processes=5)


def test_a_system_without_shared_memory_has_no_bound(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "SHARED_MEMORY", tmp_path / "none")
    checks.require_shared_memory(2**60, processes=1)
    monkeypatch.setattr(checks, "SHARED_MEMORY", tmp_path)
    assert checks.free_shared_memory() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_a_checkpoint_must_fit_on_the_disk(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: usage(9 * MIB, 4 * MIB, 5 * MIB))
    checks.require_disk(tmp_path, 5 * MIB)
    with pytest.raises(UserError, match=rf"--run {tmp_path}: a checkpoint takes 6.0 MiB, the disk has 5.0 MiB free"):
        checks.require_disk(tmp_path, 6 * MIB)


@pytest.mark.parametrize("blind", [[], ["rank 1 on node-b"], [f"rank {rank} on node-b" for rank in range(1, 6)]])
def test_every_rank_must_see_the_runs_folder(blind, monkeypatch, tmp_path):
    """The other ranks' answers are given here; those of real nodes are in tests/slurm."""
    rank_0 = SimpleNamespace(is_main_process=True, process_index=0, wait_for_everyone=lambda: None)
    monkeypatch.setattr(checks, "broadcast_object_list", lambda values: values)
    monkeypatch.setattr(checks, "gather_object", lambda own: own + blind)
    folder = RunFolder(tmp_path)
    if blind:
        named = ", ".join(blind[:4]) + " and others" * (len(blind) > 4)
        with pytest.raises(UserError, match=f"{named} cannot see this folder of rank 0"):
            checks.require_shared_folder(folder, rank_0)
    else:
        checks.require_shared_folder(folder, rank_0)
    assert not folder.probe.exists()


def test_a_folder_that_a_rank_does_not_see_is_waited_for_and_then_named(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "_DISK_PATIENCE", 0.3)
    rank_1 = SimpleNamespace(is_main_process=False, process_index=1, wait_for_everyone=lambda: None)
    monkeypatch.setattr(checks, "broadcast_object_list", lambda values: ["token", "node-a"])
    monkeypatch.setattr(checks, "gather_object", lambda own: own)
    with pytest.raises(UserError, match="rank 1 on .* cannot see this folder of rank 0 on node-a"):
        checks.require_shared_folder(RunFolder(tmp_path), rank_1)


@pytest.mark.parametrize(
    "genders, weight, nothing",
    [
        ([True, True], 1, set()),
        ([True, False], 1, set()),
        ([False], 1, {"gender"}),
        ([True], 0, {"age", "gender"}),
        ([], 1, {"age", "gender"}),
    ],
)
def test_teachers_teach_the_gender_where_one_of_them_estimates_it(genders, weight, nothing, tmp_path):
    folders = [tmp_path / f"{number}" for number in range(len(genders))]
    for folder, gender in zip(folders, genders, strict=True):
        folder.mkdir()
        Card({"name": "single"}, {"name": "dldl"}, {"min_age": 0, "max_age": 100}, 64, gender=gender).save(folder)
    teachers = f"[{', '.join(map(str, folders))}]"
    config = read_run_config([*FILES, "--optim.teachers", teachers, "--optim.teacher_weight", f"{weight}"])
    assert checks.unlearnt(config, {"age": 0, "gender": 0}) == nothing


def test_a_teacher_that_is_not_there_is_one_line(tmp_path):
    config = read_run_config([*FILES, "--optim.teachers", f"[{tmp_path / 'none'}]"])
    with pytest.raises(UserError, match=f"{tmp_path / 'none'}"):
        checks.unlearnt(config, {})
