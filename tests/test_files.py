"""Files that are written whole, readable by whom the umask says, and errors in one line."""

import errno
import os
import stat

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mivolo_lite.errors import UserError
from mivolo_lite.files import explain_write_errors, save_tensors, write_text


@pytest.mark.parametrize(
    "error, reason",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (SafetensorError("Error while serializing: I/O error: No space left (os error 28)"), "No space left on device"),
    ],
)
def test_what_the_file_system_refuses_is_one_line(error, reason, tmp_path):
    with pytest.raises(UserError, match=f"cannot be written: {reason}; make room"):
        with explain_write_errors(tmp_path, "make room"):
            raise error


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(SafetensorError), explain_write_errors(tmp_path, "make room"):
        raise SafetensorError("invalid header")


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
@pytest.mark.parametrize("tensor", [torch.ones(3), np.ones(3, dtype=np.float32)])
def test_the_umask_says_who_may_read_tensors(tmp_path, umask, tensor):
    before = os.umask(umask)
    try:
        save_tensors({"one": tensor}, tmp_path / "x.safetensors", {"digest": "d"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o666 & ~umask
    assert load_file(tmp_path / "x.safetensors")["one"].sum() == 3


def test_text_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text(tmp_path / "text", "before")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="text: cannot be written"):
        write_text(tmp_path / "text", "after")
    assert (tmp_path / "text").read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["text"]
