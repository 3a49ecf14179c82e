"""Files that this package writes: their permissions are the umask's, and they appear whole or not at all."""

import os
import stat

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mivolo_lite.files import save_tensors
from tests.shards.tiny_shards import make_shards


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("ones", [np.ones, torch.ones])
def test_permissions_follow_the_umask_as_those_of_other_files_do(tmp_path, umask, mask, ones):
    umask(mask)
    (tmp_path / "other").write_text("")
    save_tensors({"a": ones(3)}, tmp_path / "x.safetensors", {"digest": "d"})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask}
    assert load_file(tmp_path / "x.safetensors")["a"].tolist() == [1, 1, 1]


def test_so_do_those_of_an_index(tmp_path, umask):
    umask(0o027)
    make_shards(tmp_path, [3])
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    with pytest.raises((ValueError, SafetensorError)):
        save_tensors({"a": torch.zeros(3).to_sparse()}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_no_tensors_are_a_file_as_well(tmp_path):
    save_tensors({}, tmp_path / "x.safetensors")
    assert load_file(tmp_path / "x.safetensors") == {}
