"""Tars of others: their order, their links, their hidden files, and headers that lie."""

import json
import resource
import struct
import tarfile
from functools import partial

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.shards.summary import left_out_of
from tests.shards.test_index import bytes_of, write_tar
from tests.shards.tiny_shards import noise_jpeg


def pair(number):
    return {f"{number}.jpg": noise_jpeg(number), f"{number}.json": b'{"age": %d}' % (number + 20)}


def header(name, size=0, kind=tarfile.REGTYPE, link="", pax=None):
    """The blocks of a member's header, whatever it claims."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.pax_headers = size, kind, link, pax or {}
    return info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)


def write_raw(path, *blocks):
    path.write_bytes(b"".join(block.ljust(-(-len(block) // 512) * 512, b"\0") for block in blocks) + b"\0" * 1024)


def raw_pair(number):
    return [block for name, data in pair(number).items() for block in (header(name, len(data)), data)]


def test_hidden_files_are_passed_over(tmp_path):
    """As macOS writes tars: ._NAME beside each NAME, which would part a sample's members."""
    members = {".DS_Store": b"x", "._.": b"x"}
    for number in range(3):
        for name, data in pair(number).items():
            members |= {f"./._{name}": b"Mac OS X", f"./{name}": data}
    write_tar(tmp_path / "s.tar", members)
    (tmp_path / "._s.tar").write_bytes(b"Mac OS X")
    index = index_shards(tmp_path, max_reject_rate=0)
    assert [index.key(number) for number in range(3)] == ["./0", "./1", "./2"] and index.info["rejected"] == 0


def test_members_may_lie_anywhere(tmp_path):
    members = pair(0) | pair(1) | pair(2)
    write_tar(tmp_path / "s.tar", dict(sorted(members.items(), key=lambda member: member[0][::-1])))
    index = index_shards(tmp_path)
    ages = {index.key(number): index.columns["age_lo"][number] for number in range(3)}
    assert ages == {"0": 20, "1": 21, "2": 22}
    for number in range(3):
        assert bytes_of(index, "face", number) == noise_jpeg(int(index.key(number)))


def test_a_hard_link_is_what_it_links_to(tmp_path):
    link = partial(header, kind=tarfile.LNKTYPE)
    labels = [header("b.json", 11), b'{"age": 30}']
    write_raw(
        tmp_path / "s.tar", *raw_pair(0), link("b.jpg", link="./0.jpg"), link("b.body.jpg", link="b.jpg"), *labels
    )
    index = index_shards(tmp_path)
    assert index.info["labels"]["face"] == 2 and index.info["labels"]["body"] == 1
    assert bytes_of(index, "face", 1) == bytes_of(index, "body", 1) == noise_jpeg(0)


@pytest.mark.parametrize(
    "bad, reason",
    [
        ([header("b.jpg", kind=tarfile.SYMTYPE, link="0.jpg")], "b.jpg is a symbolic link"),
        ([header("b.jpg", kind=tarfile.LNKTYPE, link="elsewhere.jpg")], "b.jpg is a hard link to elsewhere.jpg"),
        ([header("b.jpg", kind=tarfile.FIFOTYPE)], "b.jpg is not a file"),
        ([header("b.jpg", 3), b"\xff\xd8\xff"] * 2, "b.jpg occurs more than once"),
        ([header("b.jpg", pax={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**42)})], "b.jpg is a GNU sparse file"),
    ],
)
def test_what_has_no_bytes_of_its_own_is_named(tmp_path, bad, reason):
    write_raw(tmp_path / "s.tar", *raw_pair(0), *bad, header("b.json", 11), b'{"age": 30}')
    assert len(index_shards(tmp_path, max_reject_rate=1)) == 1
    assert reason in (tmp_path / "rejected.jsonl").read_text()


def test_labels_twice_are_not_chosen_from(tmp_path):
    twice = raw_pair(0) + [header("0.json", 11), b'{"age": 70}']
    write_raw(tmp_path / "s.tar", *twice, *raw_pair(1))
    assert len(index_shards(tmp_path, max_reject_rate=1)) == 1
    assert "0.json occurs more than once" in (tmp_path / "rejected.jsonl").read_text()


def _octal(size):
    return b"%011o\0" % size if size >= 0 else b"\xff" + struct.pack(">q", size).rjust(11, b"\xff")


def _claims(kind, size):
    block = bytearray(header("x", 0, kind))
    block[124:136] = _octal(size)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "blocks",
    [
        [_claims(tarfile.XHDTYPE, 8**11 - 1)],
        [_claims(tarfile.GNUTYPE_LONGNAME, 8**11 - 1)],
        [_claims(tarfile.REGTYPE, 8**11 - 1)],
        [_claims(tarfile.REGTYPE, -(2**40))],
        [_claims(tarfile.XHDTYPE, -(2**40))],
        [_claims(tarfile.XHDTYPE, 21), b"21 size=-99999999999\n", header("b.jpg")],
        [_claims(tarfile.XHDTYPE, 15), b"15 size=99" + b"9" * 5, header("b.jpg")],
        [_claims(tarfile.XHDTYPE, 2**19), b"2 " * (2**18 - 1) + b"a=", header("b.jpg")],
        [header("L", 512, tarfile.GNUTYPE_LONGNAME), b"name"] * 3000,
    ],
)
def test_a_header_that_lies_is_one_line_in_bounded_memory(tmp_path, blocks):
    write_raw(tmp_path / "s.tar", *raw_pair(0), *blocks)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="s.tar: damaged or truncated tar") as error:
        index_shards(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_joined_tars_are_refused(tmp_path):
    """By cat, where tarfile reads the first alone; also where its end fills a record, as GNU tar writes it."""
    write_tar(tmp_path / "a.tar", pair(0))
    first = (tmp_path / "a.tar").read_bytes()
    assert len(first) % tarfile.RECORDSIZE == 0
    write_tar(tmp_path / "a.tar", pair(1))
    (tmp_path / "a.tar").write_bytes(first + b"\0" * 2**21 + (tmp_path / "a.tar").read_bytes())
    with pytest.raises(UserError, match="a.tar: .*concatenated by cat"):
        index_shards(tmp_path)


def test_shards_in_folders_and_compressed_ones_are_named(tmp_path):
    (tmp_path / "0").mkdir()
    write_tar(tmp_path / "0" / "00000.TAR", pair(0))
    with pytest.raises(UserError, match=r"holds no .tar shards itself, but its folders do \(0\)"):
        index_shards(tmp_path)
    (tmp_path / "0" / "labels.csv.gz").write_bytes(b"\x1f\x8b")
    assert len(index_shards(tmp_path / "0")) == 1
    write_tar(tmp_path / "s.tar", pair(0))
    assert index_shards(tmp_path).info["folders_left_out"] == ["0"]
    assert len(ShardIndex.load(tmp_path)) == 1
    (tmp_path / "b.tar.zst").write_bytes(b"")
    with pytest.raises(UserError, match="b.tar.zst: compressed"):
        index_shards(tmp_path)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 20, "it is a PNG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "it is a WebP"),
        (noise_jpeg(1)[:-40], "without an end"),
    ],
)
@pytest.mark.parametrize("name", ["face.jpg", "body.jpg"])
def test_an_image_that_is_no_jpeg_is_rejected_as_what_it_is(tmp_path, data, reason, name):
    write_tar(tmp_path / "s.tar", pair(0) | {f"b.{name}": data, "b.json": b"{}"})
    assert len(index_shards(tmp_path, max_reject_rate=0.5)) == 1
    (reject,) = map(json.loads, (tmp_path / "rejected.jsonl").read_text().splitlines())
    assert reject["image"] == "s.tar:b" and reason in reject["reason"]


def test_images_that_no_sample_reads_are_counted(tmp_path):
    """Names with dots in them: the key ends at the first one."""
    write_tar(tmp_path / "s.tar", pair(0) | {"0.0.jpg": noise_jpeg(5), "0.0.json": b"{}", "LICENSE": b"MIT"})
    index = index_shards(tmp_path)
    assert len(index) == 1 and index.info["unread"] == {"images": 1, "first": "s.tar:0.0.jpg"}
    write_tar(tmp_path / "s.tar", {f"tilt.{number}.id.jpg": noise_jpeg(number) for number in range(1000)})
    with pytest.raises(
        UserError, match=r"key ends at the first dot of a name \(tilt.0.id.jpg, .* and 997 more"
    ) as error:
        index_shards(tmp_path)
    assert len(str(error.value)) < 400


def test_images_of_other_formats_say_what_to_do(tmp_path):
    write_tar(tmp_path / "s.tar", {"0.png": b"\x89PNG\r\n\x1a\n" + bytes(30), "0.json": b"{}"})
    with pytest.raises(UserError, match="0.png is a PNG; shards hold JPEGs alone: `mivolo-lite pack shards` converts"):
        index_shards(tmp_path)


def test_an_empty_tar_holds_no_sample(tmp_path):
    write_tar(tmp_path / "s.tar", {})
    with pytest.raises(UserError, match="none of 0 images is usable"):
        index_shards(tmp_path)


def test_any_bytes_in_a_name_make_one_line(tmp_path):
    bad = {"a\nb.jpg": b"", "a\nb.json": b"{}", "0.\udcff\n.jpg": noise_jpeg(3)}
    write_tar(tmp_path / "s.tar", bad | pair(0))
    with pytest.raises(UserError, match=r"s.tar:a\?b: a\?b.jpg: .*it is empty") as error:
        index_shards(tmp_path)
    assert str(error.value).isprintable()
    index = index_shards(tmp_path, max_reject_rate=1)
    assert all(line.isprintable() for line in left_out_of(index)) and index.info["unread"]["images"] == 1
