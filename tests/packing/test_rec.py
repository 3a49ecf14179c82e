"""Records of identities are read by hand; what is damaged is rejected, and pickles are refused."""

import pickle
import struct
from pathlib import Path

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.rec import RecSource
from mivolo_lite.shards.rejects import Rejected
from tests.packing.shard_content import labels_of, members_of
from tests.shards.tiny_shards import noise_jpeg

MAGIC = struct.pack("<I", 0xCED7230A)


def framed(data: bytes, kind: int = 0) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(data)) + data + b"\0" * (-len(data) % 4)


def record(labels: list[float], image: bytes, flag: int | None = None) -> bytes:
    flag = (len(labels) if len(labels) > 1 else 0) if flag is None else flag
    body = struct.pack("<IfQQ", flag, labels[0] if not flag else 0.0, 1, 0)
    return body + (struct.pack(f"<{flag}f", *labels) if flag else b"") + image


def write(folder: Path, records: list[tuple[int, bytes]]) -> Path:
    content, index = b"", ""
    for key, data in records:
        index += f"{key}\t{len(content)}\n"
        content += data
    (folder / "train.rec").write_bytes(content)
    (folder / "train.idx").write_text(index)
    return folder / "train.rec"


@pytest.fixture
def rec(tmp_path):
    """Eight images of four people behind a record that says so, two lists of identities behind them."""
    images = [(n, framed(record([float(n % 4), 0.0] if n % 2 else [float(n % 4)], noise_jpeg(n)))) for n in range(1, 9)]
    header = (0, framed(record([9.0, 11.0], b"")))
    ranges = [(n, framed(record([1.0, 5.0], b""))) for n in (9, 10)]
    return write(tmp_path, [header, *images, *ranges])


def test_images_and_identities(rec, tmp_path):
    source = RecSource(rec)
    assert source.items() == [str(key) for key in range(1, 9)]
    for item in source.items():
        image = source.read(item)
        assert image.samples[0].face == noise_jpeg(int(item))
        assert image.samples[0].labels.extra == {"identity": str(int(item) % 4)}
        assert image.together == str(int(item) % 4).encode()
    packed = pack(source, tmp_path / "out", {"a": 0.5, "b": 0.5})
    assert "0 people are in two splits, of 4" in packed.notes
    faces = [data for index in packed.splits.values() for data in members_of(index, "face")]
    assert sorted(faces) == sorted(noise_jpeg(number) for number in range(1, 9))
    assert {label["identity"] for index in packed.splits.values() for label in labels_of(index)} == set("0123")


def test_people_of_seven_digits_are_told_apart(tmp_path):
    people = (1234561.0, 1234562.0)
    source = RecSource(write(tmp_path, [(n, framed(record([who], noise_jpeg(n)))) for n, who in enumerate(people)]))
    assert [source.read(item).together for item in source.items()] == [b"1234561", b"1234562"]


def test_without_a_first_record_that_tells_all_are_images(tmp_path):
    rec = write(tmp_path, [(n, framed(record([3.0], noise_jpeg(n)))) for n in (5, 2, 9)])
    assert RecSource(rec).items() == ["2", "5", "9"]


def test_data_that_hold_the_magic_number_come_in_parts(tmp_path):
    data = record([7.0], noise_jpeg(1))
    first, second, third = data[:40], data[40:80], data[80:]
    parts = framed(first, 1) + framed(second, 2) + framed(third, 3)
    whole = MAGIC.join((first, second, third))
    source = RecSource(write(tmp_path, [(1, framed(record([7.0], noise_jpeg(2)))), (2, parts)]))
    with pytest.raises(Rejected, match="unreadable JPEG"):  # the magic number is no part of a good one
        source.read("2")
    assert framed(whole) != parts
    from mivolo_lite.packing.sources.rec import _record

    assert _record(source.images, source.offsets[1]) == whole


@pytest.mark.parametrize(
    "damaged, reason",
    [
        (b"\0" * 40, "no record begins there"),
        (MAGIC + struct.pack("<I", 10_000) + b"x" * 40, "beyond the end of the file"),
        (framed(b"short"), "unpack_from requires"),
        (framed(record([1.0], b"no image")), "no image|of no known format|it is text"),
        (framed(record([float("nan")], noise_jpeg(1))), "a label that is no number"),
        (framed(record([-1.0], noise_jpeg(1))), "identity -1 stands for no one"),
        (framed(struct.pack("<IfQQ", 10**9, 0, 0, 0)), "1000000000 labels"),
        (framed(b"x", 1) * 3, "no record begins there"),
    ],
)
def test_a_damaged_record_is_rejected(tmp_path, damaged, reason):
    source = RecSource(write(tmp_path, [(1, framed(record([1.0], noise_jpeg(1)))), (2, damaged)]))
    source.read("1")
    with pytest.raises(Rejected, match=reason):
        source.read("2")


def test_what_is_no_rec_is_one_clear_line(rec, tmp_path):
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(([b"x"], [True])))
    for make, message in (
        (lambda: RecSource(tmp_path / "lfw.bin"), "a pickle can run any program"),
        (lambda: RecSource(tmp_path), "is no .rec file; give train.rec"),
        (lambda: RecSource(tmp_path / "train.idx"), "is no .rec file; give train.rec"),
        (
            lambda: RecSource(tmp_path / "gone.rec"),
            "gone.idx cannot be read: No such file or directory; train.rec and train.idx lie together",
        ),
        (lambda: _with_index(rec, b"\xff\xfe\n"), "train.idx or the first record is damaged"),
        (lambda: _with_index(rec, b"1\t99999999\n"), "train.idx or the first record is damaged"),
        (lambda: _with_index(rec, b""), "train.idx or the first record is damaged"),
    ):
        with pytest.raises(UserError, match=message):
            make()


def _with_index(rec: Path, content: bytes) -> RecSource:
    rec.with_suffix(".idx").write_bytes(content)
    return RecSource(rec)
