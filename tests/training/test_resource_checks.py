"""What would end a run later is an error before its first step: no room, and folders that a rank does not see."""

import shutil
from collections import namedtuple
from types import SimpleNamespace

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.training import resource_checks
from mivolo_lite.training.run_folder import RunFolder

MIB = 2**20


@pytest.fixture
def shared_memory(monkeypatch):
    monkeypatch.setattr(resource_checks, "free_shared_memory", lambda: 64 * MIB)


def test_batches_of_all_processes_must_fit_into_shared_memory(shared_memory):
    resource_checks.require_shared_memory(16 * MIB, processes=4)
    with pytest.raises(UserError, match="batches of 5 processes need 80 MiB of shared memory, 64 MiB are free"):
        resource_checks.require_shared_memory(16 * MIB, processes=5)


def test_a_system_without_shared_memory_has_no_bound(monkeypatch, tmp_path):
    monkeypatch.setattr(resource_checks, "SHARED_MEMORY", tmp_path / "none")
    resource_checks.require_shared_memory(2**60, processes=1)
    monkeypatch.setattr(resource_checks, "SHARED_MEMORY", tmp_path)
    assert resource_checks.free_shared_memory() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_a_checkpoint_must_fit_on_the_disk(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(resource_checks.shutil, "disk_usage", lambda folder: usage(9 * MIB, 4 * MIB, 5 * MIB))
    resource_checks.require_disk(tmp_path, 5 * MIB)
    with pytest.raises(UserError, match=rf"--run {tmp_path}: a checkpoint takes 6.0 MiB, the disk has 5.0 MiB free"):
        resource_checks.require_disk(tmp_path, 6 * MIB)


@pytest.mark.parametrize("blind", [[], ["rank 1 on node-b"], [f"rank {rank} on node-b" for rank in range(1, 6)]])
def test_every_rank_must_see_the_runs_folder(blind, monkeypatch, tmp_path):
    """The other ranks' answers are given here; those of real nodes are in tests/slurm."""
    rank_0 = SimpleNamespace(is_main_process=True, process_index=0, wait_for_everyone=lambda: None)
    monkeypatch.setattr(resource_checks, "broadcast_object_list", lambda values: values)
    monkeypatch.setattr(resource_checks, "gather_object", lambda own: own + blind)
    folder = RunFolder(tmp_path)
    if blind:
        named = ", ".join(blind[:4]) + " and others" * (len(blind) > 4)
        with pytest.raises(UserError, match=f"{named} cannot see this folder of rank 0"):
            resource_checks.require_shared_folder(folder, rank_0)
    else:
        resource_checks.require_shared_folder(folder, rank_0)
    assert not folder.probe.exists()


def test_a_folder_that_a_rank_does_not_see_is_waited_for_and_then_named(monkeypatch, tmp_path):
    monkeypatch.setattr(resource_checks, "_DISK_PATIENCE", 0.3)
    rank_1 = SimpleNamespace(is_main_process=False, process_index=1, wait_for_everyone=lambda: None)
    monkeypatch.setattr(resource_checks, "broadcast_object_list", lambda values: ["token", "node-a"])
    monkeypatch.setattr(resource_checks, "gather_object", lambda own: own)
    with pytest.raises(UserError, match="rank 1 on .* cannot see this folder of rank 0 on node-a"):
        resource_checks.require_shared_folder(RunFolder(tmp_path), rank_1)
