"""The switches in a run: what they leave as it is, what they write down, and where they cannot work."""

import json

import pytest
import torch

from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.training.loop import Trainer

SWITCHES = ["--optim.balance.by", "age_gender", "--optim.dro.by", "gender", "--optim.dro.fewest", "5"]
STREAM = ["--data.reader", "stream", "--data.stream_samples", "60"]


def words(people, run, *options):
    return [
        "--run", str(run), "--data.train", f"{people}/train", "--data.val", f"{people}/val",
        "--model.backbone", "test_vit", "--data.image_size", "32", "--data.workers", "0",
        "--optim.global_batch", "16", "--optim.epochs", "1", "--train.log_every", "1", *options,
    ]  # fmt: skip


def test_the_order_and_the_images_stay_as_they_are(people, tmp_path):
    steps = []
    for name, switches in (("plain", []), ("weighted", SWITCHES)):
        trainer = Trainer(read_run_config(words(people, tmp_path / name, *switches)))
        steps.append(list(trainer.loader))
        trainer.heartbeat.stop()
    assert (trainer.step.weights is not None) and trainer.dro.names == ["M", "F"]
    assert len(steps[0]) == len(steps[1]) > 3
    for plain, weighted in zip(*steps, strict=True):
        assert torch.equal(plain.sample, weighted.sample) and torch.equal(plain.face.pixels, weighted.face.pixels)


def test_the_log_says_what_each_subgroup_weighs(people, tmp_path):
    main(["train", *words(people, tmp_path / "run", *SWITCHES, "--optim.dro.step_size", "0.5")])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    subgroups = [line["subgroups"] for line in lines if line["kind"] == "train"]
    assert all(set(each) == {"M", "F"} for each in subgroups)
    assert len({each["F"] for each in subgroups}) == len(subgroups)
    assert all((each["M"] - 1) * (each["F"] - 1) < 0 for each in subgroups)  # one more, so the other less
    state = json.loads((max((tmp_path / "run" / "checkpoints").iterdir()) / "state.json").read_text())["state"]
    assert torch.tensor(state["subgroups"]["F"]).exp().item() == pytest.approx(subgroups[-1]["F"])


@pytest.mark.parametrize(
    "options, parts",
    [
        (["--optim.balance.by", "age", *STREAM], ["data.reader stream"]),
        (["--optim.dro.by", "gender", *STREAM], ["data.reader stream"]),
        (["--method", "{name: regression, lds: true}", *STREAM], ["method.lds", "stream"]),
        (["--method", "{name: coral, importance: true}", *STREAM], ["method.importance", "stream"]),
        (["--optim.dro.by", "gender", "--optim.dro.fewest", "1000"], ["optim.dro.by gender", "0 subgroups", "1000"]),
        (["--optim.balance.by", "group", "--optim.balance.cap", "0.5"], ["optim.balance.cap", "0.5"]),
    ],
)
def test_where_they_cannot_work_it_is_one_line(people, tmp_path, capsys, options, parts):
    if "stream" in options:
        options = [*options, "--data.train", f"{people}/train/train-000000.tar"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *words(people, tmp_path / "run"), *options])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert all(part in error for part in parts), error
