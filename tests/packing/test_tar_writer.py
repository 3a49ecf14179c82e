"""The tars are those of webdataset's writer, byte for byte."""

import numpy as np
import pytest
import webdataset as wds

from mivolo_lite.packing.tar_writer import TarWriter


@pytest.mark.parametrize("key", ["a", "sub/dir", "x" * 91, "x" * 92, "x" * 93, "x" * 95, "x" * 99, "z" * 300, "-_0"])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 9217, 70_000])
def test_the_same_bytes_as_webdataset(tmp_path, key, size):
    data = np.random.default_rng(size).bytes(size)
    with wds.TarWriter(
        str(tmp_path / "w.tar"), encoder=False, mtime=0, user="root", group="root", mode=0o644
    ) as theirs:
        theirs.write({"__key__": key, "face.jpg": data, "json": b"{}"})
        theirs.write({"__key__": f"{key}2", "json": data})
    with open(tmp_path / "o.tar", "wb") as file:
        ours = TarWriter(file)
        for name, content in ((f"{key}.face.jpg", data), (f"{key}.json", b"{}"), (f"{key}2.json", data)):
            ours.add(name, content)
        ours.close()
    assert (tmp_path / "o.tar").read_bytes() == (tmp_path / "w.tar").read_bytes()
