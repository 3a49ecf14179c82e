"""A folder for every person becomes shards in which nobody is both trained and judged on."""

import json
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.loading.task_labels import identities, task_columns, training_columns
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.identities import IdentitySource
from mivolo_lite.packing.worker_shards import WorkerShard, pack_worker_shard
from mivolo_lite.shards.columns import EXTRA, MOST_COLUMNS, extra_columns
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels
from tests.shards.tiny_shards import noise_jpeg

SPLIT = {"train": 0.7, "val": 0.3}
ODD = ["José María", "李明", "王芳", "d'Arc, Jeanne #1", "0001", "a.jpg", "..b", "tab\tnew"]


@pytest.fixture
def images(tmp_path):
    """Eight people with odd names and 32 others, with 1 to 4 images each."""
    folder = tmp_path / "images"
    for number, person in enumerate([*ODD, *(f"n{number:06d}" for number in range(32))]):
        (folder / person / "deeper").mkdir(parents=True)
        for image in range(1 + number % 4):
            where = "deeper/" if image == 2 else ""
            (folder / person / f"{where}{image}.jpg").write_bytes(noise_jpeg(10 * number + image))
    return folder


def people_of(index):
    """The name of the person of each sample, as its JSON says it, beside the number that the index gives."""
    names = []
    for shard in range(len(index.info["shards"])):
        with tarfile.open(index.shard_path(shard)) as tar:
            names += [json.load(tar.extractfile(one))["identity"] for one in tar if one.name.endswith(".json")]
    return names, identities(index)


def test_every_person_comes_into_one_split_and_has_one_number(images, tmp_path):
    packed = pack(IdentitySource(images), tmp_path / "out", SPLIT, samples_per_shard=10)
    found = {split: people_of(ShardIndex.load(tmp_path / "out" / split)) for split in SPLIT}
    names = {split: set(people) for split, (people, _) in found.items()}
    assert not names["train"] & names["val"] and names["train"] | names["val"] == {
        path.name for path in images.iterdir()
    }
    assert sum(map(len, packed.splits.values())) == 100 and not packed.rejected
    for split, (people, numbers) in found.items():
        ordered = sorted(set(people))
        assert numbers.tolist() == [ordered.index(person) for person in people]
        assert packed.splits[split].num_identities == len(ordered)
        info = packed.splits[split].info
        assert "identity" not in info["words"]
        assert info["labels"]["identity"] == {"known": len(people), "people": len(ordered)}


def test_images_of_a_person_do_not_lie_together(images, tmp_path):
    """Training mixes neighbours only: a batch of one person's images would teach nothing."""
    packed = pack(IdentitySource(images), tmp_path / "out", {"train": 1.0})
    numbers = identities(packed.splits["train"])
    neighbours = np.count_nonzero(numbers[1:] == numbers[:-1])
    assert neighbours < 15  # 60 if sorted by person


@pytest.mark.slow
def test_the_same_in_parts(images, tmp_path):
    whole = pack(IdentitySource(images), tmp_path / "whole", SPLIT)
    for number in (1, 2):
        pack_worker_shard(IdentitySource(images), tmp_path / "parts", SPLIT, WorkerShard(number, 2))
    for split in SPLIT:
        assert ShardIndex.load(tmp_path / "parts" / split).digest == whole.splits[split].digest


def test_people_of_few_images_are_rejected(images, tmp_path, capsys):
    options = ["--images", f"{images}", "--out", f"{tmp_path}/out", "--min_images", "3", "--workers", "1"]
    with pytest.raises(SystemExit):
        main(["pack", "identities", *options])
    assert "1 of this person, fewer than --min_images 3" in capsys.readouterr().err
    main(["pack", "identities", *options, "--max_reject_rate", "0.5"])
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert len(rejected) == 10 * 1 + 10 * 2 and all("--min_images 3" in one["reason"] for one in rejected)
    assert sum(len(ShardIndex.load(tmp_path / "out" / split)) for split in ("train", "val")) == 70


def test_a_name_that_is_no_text_is_rejected_and_told(tmp_path, capsys):
    for person in (b"J\xe9r\xf4me", b"Anna"):
        folder = os.path.join(os.fsencode(tmp_path), b"in", person)
        os.makedirs(folder)
        Path(os.fsdecode(folder), "0.jpg").write_bytes(noise_jpeg(0))
    main(f"pack identities --images {tmp_path}/in --out {tmp_path}/out --split all=1 --max-reject-rate 0.5 --workers 1"
         .split())  # fmt: skip
    shown = capsys.readouterr().out
    assert "all: 1 sample " in shown and "J?r?me/0.jpg: its name or a label is no Unicode text" in shown


def test_what_is_no_image_is_rejected_or_no_data_set(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        IdentitySource(tmp_path / "nowhere")
    (tmp_path / "someone").mkdir()
    (tmp_path / "loose.jpg").write_bytes(noise_jpeg(0))
    with pytest.raises(UserError, match="holds no <person>/<image>.jpg"):
        IdentitySource(tmp_path).items()
    (tmp_path / "loose.jpg").unlink()
    (tmp_path / "someone" / "broken.jpg").write_bytes(noise_jpeg(0)[:100])
    with pytest.raises(UserError, match="someone/broken.jpg: unreadable"):
        pack(IdentitySource(tmp_path), tmp_path / "out", {"train": 1.0})
    with pytest.raises(UserError, match="--min_images 0"):
        IdentitySource(tmp_path, min_images=0)


@pytest.mark.slow
def test_a_hundred_thousand_people_are_numbered_and_not_listed():
    labels = [Labels(extra={"identity": f"n{number % 100_000:06d}"}) for number in range(200_000)]
    columns, words, _ = extra_columns(labels)
    assert words == {} and columns[EXTRA + "identity"].nbytes == 800_000
    assert columns[EXTRA + "identity"].tolist() == [number % 100_000 for number in range(200_000)]


def test_an_embedding_reads_who_it_is_whatever_the_task_is_called(images, tmp_path):
    index = pack(IdentitySource(images), tmp_path / "out", {"train": 1.0}).splits["train"]
    columns = task_columns(index, {"recognition": None})
    np.testing.assert_array_equal(columns["recognition"], identities(index))


def test_numbers_are_names_too_and_nobody_is_unknown():
    columns, _, _ = extra_columns([Labels(extra={"identity": who}) for who in (12, "b", None, 12, ["x"])])
    np.testing.assert_array_equal(columns[EXTRA + "identity"], np.array([0, 2, np.nan, 0, 1], dtype=np.float32))


def test_without_people_there_is_nothing_to_learn(people):
    index = ShardIndex.load(people / "train")
    assert index.num_identities == 0
    with pytest.raises(UserError, match="no sample's JSON has a 'identity'"):
        training_columns([index], {"recognition": None})


def test_people_are_numbered_through_several_data_sets(images, people, tmp_path):
    pack(IdentitySource(images), tmp_path / "out", SPLIT)
    first, second = (ShardIndex.load(tmp_path / "out" / split) for split in SPLIT)
    without = ShardIndex.load(people / "val")
    column = training_columns([first, without, second], {"who": None})["who"]
    np.testing.assert_array_equal(column[: len(first)], identities(first))
    assert np.isnan(column[len(first) : -len(second)]).all()
    np.testing.assert_array_equal(column[-len(second) :], identities(second) + first.num_identities)


def test_names_of_labels_by_the_ten_thousand_are_read_once():
    """Each sample has names of its own: reading all samples for each name took minutes."""
    labels = [Labels(extra={"both": number, f"own{number}": number, f"word{number}": "x"}) for number in range(20_000)]
    start = time.process_time()
    columns, words, _ = extra_columns(labels)
    assert time.process_time() - start < 5
    assert len(columns) == MOST_COLUMNS and columns[EXTRA + "both"][7] == 7  # the most frequent first
    assert set(words) <= {name.removeprefix(EXTRA) for name in columns}
