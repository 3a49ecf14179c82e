"""The stock webdataset pipeline gives batches of the same kind."""

import os
import tarfile
import time
from itertools import islice

import numpy as np
import pytest
import simplejpeg
import torch
import webdataset as wds

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.loading import stream_source
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.readers import StreamReader
from mivolo_lite.loading.transforms import AugmentConfig
from mivolo_lite.shards.sample import Labels, Sample
from tests.shards.tiny_shards import make_shards, noise_jpeg, write_shard


def stream(address, batch=4, workers=0):
    plain = AugmentConfig(randaugment_ops=0, erase=0)
    config = DataConfig(train=address, image_size=16, workers=workers, stream_samples=17, augment=plain)
    reader = StreamReader(config, seed=0)
    return reader.batches(("face", "body"), BatchPlan.resolve(batch, None, 1), 0, 0, 3)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("address", ["pipe:cat {folder}/part-0000.tar", "{folder}/part-{{0000..0001}}.tar"])
def test_batches_from_a_pipe_and_from_a_pattern(tmp_path, address, workers):
    make_shards(tmp_path, [9, 8])
    batches = list(islice(stream(address.format(folder=tmp_path), workers=workers), 6))
    for batch in batches:
        assert len(batch) == 4 and batch.seen(("face", "body")).all()
        for pixels, rows in (batch.face, batch.body):
            assert pixels.dtype == torch.uint8 and pixels.shape == (len(rows), 3, 16, 16)
    assert any(batch.age.known.any() for batch in batches)
    assert any(len(batch.face.rows) for batch in batches)  # a single batch may hold bodies alone


def test_every_process_of_many_gets_batches_without_end(tmp_path, monkeypatch):
    """webdataset's own splitters refuse more than one process, or leave those without a shard with nothing."""
    make_shards(tmp_path, [5])
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "7")
    assert len(list(islice(stream(f"{tmp_path}/part-0000.tar"), 10))) == 10


def test_labels_belong_to_their_images(tmp_path):
    samples = [Sample(f"{age}", bright(age), None, Labels((age, age + 1))) for age in range(0, 100, 5)]
    write_shard(tmp_path / "s.tar", samples)
    for batch in islice(stream(f"{tmp_path}/s.tar"), 8):
        assert batch.age.known.all() and torch.equal(batch.age.hi, batch.age.lo + 1)
        assert ((batch.face.pixels.float().amax(dim=(1, 2, 3)) - 2 * batch.age.lo).abs() <= 3).all()


def bright(age):
    return simplejpeg.encode_jpeg(np.full((16, 16, 3), 2 * age, np.uint8), quality=100)


def test_what_cannot_be_read_is_absent_and_told(tmp_path):
    members = {"a.jpg": b"no image", "a.cls": b"20", "b.jpg": noise_jpeg(1), "b.cls": b"old", "c.jpg": noise_jpeg(2)}
    with wds.TarWriter(f"{tmp_path}/s.tar", encoder=False) as tar:
        for key in "abc":
            tar.write({"__key__": key} | {name[2:]: data for name, data in members.items() if name[0] == key})
    batch = next(iter(stream(f"{tmp_path}/s.tar", batch=60)))
    told = {text.partition(":")[0]: text for text in batch.broken}
    assert "JPEG" in told["a.face"] and "'old'" in told["b"] and "no .json or .cls" in told["c"]
    assert not batch.age.known.any() and 0 < len(batch.face.rows) < 60
    assert 60 - len(batch.face.rows) == sum(text.startswith("a.face") for text in batch.broken)


def test_samples_of_other_images_are_told(tmp_path):
    with wds.TarWriter(f"{tmp_path}/s.tar", encoder=False) as tar:
        tar.write({"__key__": "a", "png": b"", "json": b'{"age": 31}'})
    batch = next(iter(stream(f"{tmp_path}/s.tar", batch=2)))
    assert batch.broken == ("a: no face or body image among its members (json, png)",) * 2


def test_an_age_has_its_standard_deviation(tmp_path):
    stds = ["2.5", None, 0.1, "wide"]
    extras = [{} if std is None else {"age_std": std} for std in stds]
    samples = [Sample(f"{age}", bright(age), None, Labels((age, age), extra=extras[age])) for age in range(4)]
    write_shard(tmp_path / "s.tar", samples)
    batch = next(iter(stream(f"{tmp_path}/s.tar", batch=60)))
    expected = torch.tensor([2.5, 0, 0.5, 0])
    assert torch.equal(batch.age.std, expected[batch.age.lo.long()])
    assert "3: age_std: 'wide' is not a number" in batch.broken


def test_what_a_stream_cannot_do_is_one_clear_line():
    for name in ("drop_face", "drop_body"):
        with pytest.raises(UserError, match=f"data.{name}: a stream hides no input"):
            StreamReader(DataConfig(train="pipe:cat x.tar", stream_samples=9, **{name: 0.3}), seed=0)


def test_a_missing_file_is_one_clear_line(tmp_path):
    make_shards(tmp_path, [2])
    with pytest.raises(UserError, match="data.train '.*part-0001.tar': no such file"):
        stream(f"{tmp_path}/part-{{0000..0001}}.tar")


def test_a_stream_must_be_told_its_length():
    with pytest.raises(UserError, match="data.stream_samples"):
        StreamReader(DataConfig(train="pipe:cat x.tar"), seed=0)


def cut(path):
    path.write_bytes(path.read_bytes()[:3000])


def cut_in_a_header(path):
    path.write_bytes(path.read_bytes().partition(b"sample00001")[0] + b"sample")


def empty(path):
    path.write_bytes(bytes(10240))


def without_samples(path):
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("README"))


def claiming_a_terabyte(path):
    member = tarfile.TarInfo("a.jpg")
    member.size = 10**12
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 2**31)


def no_tar(path):
    path.write_bytes(bytes(range(256)) * 100)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "change, message",
    [
        (cut, "truncated|unexpected end of data"),
        (cut_in_a_header, "truncated|unexpected end of data"),
        (empty, "shards in turn without a sample"),
        (without_samples, "shards in turn without a sample"),
        (claiming_a_terabyte, "4 MB without a sample"),
        (no_tar, "cannot be read"),
    ],
)
def test_a_stream_that_gives_no_samples_is_one_clear_line(tmp_path, monkeypatch, change, message, workers):
    monkeypatch.setattr(stream_source, "MOST_BYTES", 4 * 10**6)
    make_shards(tmp_path, [9])
    change(tmp_path / "part-0000.tar")
    with pytest.raises(UserError, match=f"data.train .*part-0000.tar: .*({message})") as error:
        list(islice(stream(f"{tmp_path}/part-0000.tar", workers=workers), 100))
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "address, message",
    [
        ("pipe:cat nothing", "exit code 1"),
        ("pipe:sleep 600", "no sample in 1 seconds"),
        ("pipe:yes", "cannot be read"),
        ("pipe:cat /dev/zero", "MB without a sample|shards in turn"),
        ("http://127.0.0.1:9/x.tar", "exit code 7: nobody answers there"),
        ("pipe:exit 7", "exit code 7$"),
        ("nonsense://x.tar", "cannot be read"),
    ],
)
def test_a_source_that_fails_is_silent_or_never_ends_is_one_clear_line(monkeypatch, address, message):
    monkeypatch.setattr(stream_source, "PATIENCE", 1.0)
    monkeypatch.setattr(stream_source, "MOST_BYTES", 4 * 10**6)
    begun = time.monotonic()
    with pytest.raises(UserError, match=f"data.train .*({message})") as error:
        list(islice(stream(address), 100))
    assert "\n" not in str(error.value) and time.monotonic() - begun < 60
