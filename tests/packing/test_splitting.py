"""Parts and folds: what belongs together stays together, and ages are alike where that is asked for."""

from dataclasses import replace

import numpy as np
import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.source import Source, SourceImage
from mivolo_lite.packing.splitting import Splitting
from mivolo_lite.packing.worker_shards import WorkerShard, pack_worker_shard
from mivolo_lite.shards.sample import Labels, Sample
from tests.packing.shard_content import labels_of
from tests.shards.tiny_shards import noise_jpeg

SHARES = {"train": 0.6, "val": 0.4}


class People(Source):
    """120 images of 40 people, whose ages are 0 to 39; every fourth person's have no age."""

    def items(self):
        return [f"{number:03d}" for number in range(120)]

    def read(self, item):
        person = int(item) % 40
        age = None if person % 4 == 0 else (person, person)
        sample = Sample(item, noise_jpeg(int(item), 8), None, Labels(age, extra={"identity": f"p{person}"}))
        return SourceImage(sample.face, [sample], together=f"p{person}".encode())


class Parted(People):
    """The same, which says itself who belongs where."""

    splits = ("a", "b")

    def read(self, item):
        return replace(super().read(item), split="ab"[int(item) % 2])


class Unparted(Parted):
    """The same without a usable sample of one part."""

    def items(self):
        return super().items()[::2]


class Folded(People):
    has_folds = True


def people_by(packed, key=lambda part, label: part):
    found = {}
    for part, index in packed.splits.items():
        for label in labels_of(index):
            found.setdefault(key(part, label), []).append(label["identity"])
    return found


def test_a_person_comes_into_one_part_unless_it_is_said(tmp_path):
    packed = pack(People(), tmp_path / "out", Splitting(SHARES))
    parts = people_by(packed)
    assert not set(parts["train"]) & set(parts["val"]) and sum(map(len, parts.values())) == 120
    assert packed.notes == ["0 people are in two splits, of 40"]
    by_image = pack(People(), tmp_path / "images", Splitting(SHARES, by="image"))
    shared = set.intersection(*map(set, people_by(by_image).values()))
    assert len(shared) > 10 and by_image.notes == [f"{len(shared)} people are in two splits, of 40"]


def test_parts_stratified_by_age_have_the_same_ages(tmp_path):
    packed = pack(People(), tmp_path / "out", Splitting(SHARES, stratify="age"))
    parts = people_by(packed)
    assert not set(parts["train"]) & set(parts["val"])
    assert len(parts["train"]) == pytest.approx(72, abs=3)
    ages = {part: [label["age"] for label in labels_of(index) if "age" in label]
            for part, index in packed.splits.items()}  # fmt: skip
    for quantile in (0.1, 0.5, 0.9):
        assert np.quantile(ages["train"], quantile) == pytest.approx(np.quantile(ages["val"], quantile), abs=3)


@pytest.mark.parametrize("stratify", ["no", "age"])
def test_folds_are_numbers_in_the_json_and_people_are_in_one(tmp_path, stratify):
    packed = pack(People(), tmp_path / "out", Splitting(folds=4, stratify=stratify))
    assert list(packed.splits) == ["all"]
    folds = people_by(packed, lambda _, label: label["fold"])
    assert sorted(folds) == [0, 1, 2, 3] and sum(map(len, folds.values())) == 120
    assert len(set().union(*map(set, folds.values()))) == sum(len(set(fold)) for fold in folds.values()) == 40
    if stratify == "age":
        assert all(len(fold) == 30 for fold in folds.values())


def test_a_part_for_tests_and_folds_of_the_rest(tmp_path):
    packed = pack(People(), tmp_path / "out", Splitting({"rest": 0.7, "test": 0.3}, folds=3))
    assert {label["fold"] for label in labels_of(packed.splits["rest"])} == {0, 1, 2}


@pytest.mark.slow
def test_the_data_sets_own_parts_are_kept_unless_shares_are_given(tmp_path):
    packed = pack(Parted(), tmp_path / "own", None)
    assert {name: len(index) for name, index in packed.splits.items()} == {"a": 60, "b": 60}
    assert packed.notes == ["0 people are in two splits, of 40"]
    assert set(pack(Parted(), tmp_path / "other", SHARES).splits) == set(SHARES)
    assert list(pack(Folded(), tmp_path / "folded", None).splits) == ["all"]
    assert list(pack(People(), tmp_path / "usual", None).splits) == ["train", "val"]


def test_options_that_would_do_nothing_beside_own_parts_are_one_line(tmp_path):
    for source, options, message in (
        (Parted(), {"stratify": "age"}, "--stratify age: the data set names its own splits"),
        (Parted(), {"by": "image"}, "--split_by image: the data set names its own splits"),
        (Folded(), {"stratify": "age"}, "--stratify age: the data set names its own folds"),
    ):
        with pytest.raises(UserError, match=message):
            pack(source, tmp_path / "out", Splitting(**options))
        Splitting(SHARES, **options).check(source), Splitting(folds=3, **options).check(source)


class Copies(Source):
    """Two copies of each of 40 images: of two people, or of one and of nobody who is known."""

    def items(self):
        return [f"{number:02d}" for number in range(80)]

    def read(self, item):
        number, person = int(item) // 2, {"0": "a", "1": "b", "2": "a"}.get(str(int(item) % 4))
        labels = Labels(
            (number, number), extra={"image": number} | ({"identity": f"{person}{number}"} if person else {})
        )
        sample = Sample(item, noise_jpeg(number, 8), None, labels)
        return SourceImage(sample.face, [sample], together=f"{person}{number}".encode() if person else None)


@pytest.mark.parametrize("splitting", [Splitting(SHARES), Splitting(SHARES, stratify="age"), Splitting(folds=2)])
def test_copies_stay_together_whoever_is_said_to_be_in_them(tmp_path, splitting):
    packed = pack(Copies(), tmp_path / "out", splitting)
    of_image = {}
    for part, index in packed.splits.items():
        for label in labels_of(index):
            of_image.setdefault(label["image"], set()).add((part, label.get("fold")))
    assert len(of_image) == 40 and all(len(places) == 1 for places in of_image.values())


@pytest.mark.slow
@pytest.mark.parametrize("splitting", [Splitting(folds=3, stratify="age"), Splitting(SHARES, stratify="age"), None])
def test_the_same_in_parts_and_with_workers(tmp_path, splitting):
    whole = pack(Parted(), tmp_path / "whole", splitting, workers=1)
    again = pack(Parted(), tmp_path / "again", splitting, workers=2)
    for number in (2, 1, 3):
        merged = pack_worker_shard(Parted(), tmp_path / "parts", splitting, WorkerShard(number, 3))
    for name, index in whole.splits.items():
        assert index.digest == again.splits[name].digest == merged.splits[name].digest


class Ageless(People):
    def read(self, item):
        image = super().read(item)
        return replace(image, samples=[replace(sample, labels=Labels()) for sample in image.samples])


def test_what_cannot_be_divided_is_one_line(tmp_path):
    for make, message in (
        (lambda: Splitting(folds=1), "--folds 1: give a number from 2"),
        (lambda: Splitting({"a": 0.5}), "--split: the shares 0.5 must"),
        (lambda: pack(People(), tmp_path / "a", Splitting(folds=200)), "--folds 200: fold .* of all stays empty"),
        (lambda: pack(Unparted(), tmp_path / "c", None), "no sample of 60 comes into b; give shares, as in"),
        (lambda: pack(Ageless(), tmp_path / "d", Splitting(stratify="age")), "--stratify age: no sample has an age"),
        (lambda: pack(People(), tmp_path / "b", {"a": 0.9999, "b": 0.0001}), "no sample of 120 comes into b"),
    ):
        with pytest.raises(UserError, match=message):
            make()
