"""Files that this package writes: their permissions are the umask's, and they appear whole or not at all."""

import os
import stat

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mivolo_lite.audit.audit import RESULT_FILES as AUDIT
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.comparison_files import RESULT_FILES as COMPARISON
from mivolo_lite.evaluation.evaluate import RESULT_FILES as EVALUATION
from mivolo_lite.experiments.curves import PAGE_FILE
from mivolo_lite.files import result_folder, save_tensors
from mivolo_lite.inference.result_files import RESULT_FILES as PREDICT
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


RESULTS = {
    "an evaluation": EVALUATION,
    "a comparison": COMPARISON,
    "an audit": AUDIT,
    "the results of predict": PREDICT,
}


@pytest.mark.parametrize("what", RESULTS)
@pytest.mark.parametrize("names", [*RESULTS.values(), [PAGE_FILE]], ids=[*RESULTS, "curves"])
def test_the_results_of_one_command_take_no_place_of_another_s(tmp_path, what, names):
    for name in RESULTS[what]:
        (tmp_path / name).write_text(what)
    if {*names}.isdisjoint(RESULTS[what]) or names == RESULTS[what]:
        return result_folder(tmp_path, names)
    with pytest.raises(UserError, match=f"--out .*: holds {what}, whose .* would be replaced; give another folder"):
        result_folder(tmp_path, names)
    assert {path.name for path in tmp_path.iterdir()} == {*RESULTS[what]}


def test_no_tensors_are_a_file_as_well(tmp_path):
    save_tensors({}, tmp_path / "x.safetensors")
    assert load_file(tmp_path / "x.safetensors") == {}
