"""Data sets that know different things of people: one run learns all of it."""

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.estimator import Estimator
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.people import PeopleSource
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels
from tests.training.launching import lines


class PartlyKnown(PeopleSource):
    """Synthetic people of whom one label is known."""

    def __init__(self, known: str, **options):
        super().__init__(**options)
        self.known = known

    def read(self, item):
        image = super().read(item)
        labels = [Labels(**{self.known: getattr(sample.labels, self.known)}) for sample in image.samples]
        samples = [replace(sample, labels=known) for sample, known in zip(image.samples, labels, strict=True)]
        return replace(image, samples=samples)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """``age``: 400 people, their ages known; ``gender``: 800 others, their genders known; ``both``: 150, both known."""
    folder = tmp_path_factory.mktemp("partly")
    for seed, (known, count) in enumerate({"age": 400, "gender": 800}.items(), start=1):
        pack(PartlyKnown(known, count=count, seed=seed, crop_size=64), folder / known, {"train": 1.0})
    pack(PeopleSource(count=150, seed=3, crop_size=64), folder / "both", {"val": 1.0})
    return folder


@pytest.fixture
def train(folders, tmp_path):
    """Trains a small network, and gives the run's training log and its last evaluation."""

    def run(data, *options, val="both/val"):
        main([
            "train", "--run", f"{tmp_path}/run", "--data.train", data, "--data.val", f"{folders}/{val}",
            "--data.image_size", "32", "--data.workers", "0", "--data.augment.randaugment_ops", "0",
            "--data.augment.erase", "0", "--model.backbone", "test_resnet", "--optim.global_batch", "32",
            "--train.eval_every", "100", *options,
        ])  # fmt: skip
        log = tmp_path / "run" / "metrics.jsonl"
        return lines(log, "train"), lines(log, "val")[-1]

    return run


def listed(folders, weight):
    return json.dumps([f"{folders}/age/train", {"path": f"{folders}/gender/train", "weight": weight}])


@pytest.mark.slow
def test_ages_of_one_set_and_genders_of_another_are_both_learnt(folders, train, capsys):
    log, val = train(
        listed(folders, 2), "--method", "dldl_v2", "--optim.epochs", "8", "--optim.gender_weight", "20",
        "--optim.lr", "3e-3", "--optim.warmup_epochs", "1", "--optim.ema_decay", "0.99",
    )  # fmt: skip
    assert val["mae"] < 0.6 * val["baseline_mae"] and val["gender_accuracy"] > 0.8
    assert "is trained on as well" not in capsys.readouterr().out
    assert log[-1]["passes"] == {f"{folders}/{name}/train": pytest.approx(8, abs=0.03) for name in ("age", "gender")}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["classification", "regression", "corn", "coral", "forest"])
def test_without_a_single_known_age(folders, tmp_path, train, method, capsys):
    """None to start from, to learn from or to choose the best weights by: gender is trained, and all is finite."""
    log, val = train(f"{folders}/gender/train", "--method", method, "--optim.epochs", "0.2", val="gender/train")
    assert log[-1]["age_loss"] == 0 < log[-1]["gender_loss"]
    assert val["mae"] is None and val["gender_n"] == 800
    assert f"warning: data.val {folders}/gender/train is trained on as well" in capsys.readouterr().out
    weights = load_file(tmp_path / "run" / "best" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.slow
@pytest.mark.parametrize("data, options", [("age/train", ()), ("both/val", ("--optim.gender_weight", "0"))])
def test_a_gender_that_is_not_learnt_is_not_estimated(folders, tmp_path, train, data, options, capsys):
    """The head is there for a run that resumes, and for no one else: it would answer at random."""
    small = "--optim.epochs", "0.3", *options
    _, val = train(f"{folders}/{data}", *small)
    assert (
        "gender: nothing to learn it from, or of weight 0, so the model does not estimate it" in capsys.readouterr().out
    )
    best = tmp_path / "run" / "best"
    assert val["gender_accuracy"] is None and Card.load(best).gender is False
    assert not any(name.startswith("gender_head.") for name in load_file(best / "model.safetensors"))
    assert Estimator.load(best).gender_head is None
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert "gender_head.weight" in load_file(checkpoint / "model.safetensors")
    assert Estimator.load(checkpoint).gender_head is None
    train(f"{folders}/{data}", *small, "--resume", "auto", "--optim.epochs", "0.5")
    assert Card.load(best).gender is False


@pytest.mark.slow
def test_a_gender_that_the_start_knew_is_kept(folders, tmp_path, train):
    train(f"{folders}/both/val", "--optim.epochs", "0.3")
    (tmp_path / "run").rename(tmp_path / "start")
    train(f"{folders}/age/train", "--optim.epochs", "0.1", "--init-from", f"{tmp_path}/start/best")
    assert Card.load(tmp_path / "run" / "best").gender is True


@pytest.mark.slow
def test_ages_outside_the_span_and_small_crops_are_named(folders, train, capsys):
    train(f"{folders}/both/val", "--optim.epochs", "0.3", "--ages.max_age", "60", "--data.image_size", "96")
    said = capsys.readouterr().out
    ages = ShardIndex.load(folders / "both" / "val").columns["age_lo"]
    assert f"{folders}/both/val: {(ages > 60).sum()} ages that the model cannot estimate; `ages` are 0 to 60" in said
    assert f"{folders}/both/val: crops of at most 64 px, which data.image_size 96 enlarges" in said


@pytest.mark.slow
def test_another_list_cannot_resume_it(folders, train, capsys):
    train(listed(folders, 2), "--optim.epochs", "0.1")
    for data in (listed(folders, 3), f"{folders}/age/train"):
        with pytest.raises(SystemExit) as stop:
            train(data, "--optim.epochs", "0.1", "--resume", "auto")
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1 and "trained on other shards" in error
