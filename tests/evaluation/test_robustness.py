"""Robustness: the measure by hand, and that it does not depend on how the images are dealt out."""

import json

import numpy as np
import pytest
import torch

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.evaluation.plots import robustness_plots
from mivolo_lite.evaluation.robustness import CELLS, VERSIONS, CorruptedDataset, SubsetSampler, choose, degradation
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.evaluation.table import metrics_table
from mivolo_lite.images.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.workers import BatchLoader
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef
from tests.evaluation.simulated import people
from tests.evaluation.untrained import SIDE
from tests.training.forked_ranks import TORCHRUN, run_launched

pytestmark = pytest.mark.usefixtures("no_drawing")

SAMPLES = 30


def close(one, other, rel=1e-4):
    """Two results, equal but for the last digits of float32."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name], rel) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(close(a, b, rel) for a, b in zip(one, other, strict=True))
    return one == other if isinstance(one, str | None) else one == pytest.approx(other, rel=rel, abs=1e-4)


def test_the_mean_relative_degradation_of_a_small_example():
    errors = np.full((3, VERSIONS), 2.0)
    errors[:, 0] = [1, -2, 3]  # clean MAE 2
    blur, noise = (1 + SEVERITIES * list(CORRUPTIONS).index(name) for name in ("blur", "noise"))
    errors[:, blur : blur + SEVERITIES] = [-3, 4, 5, 6, 7]  # mean 5: 150 % worse
    errors[:, noise + 4] = [0, -3, 0]  # MAE 1 at the strongest: 10 % better on the mean of the five
    found = degradation(np.vstack([errors, np.full((1, VERSIONS), np.nan)]))
    assert found["samples"] == 3 and found["clean_mae"] == 2
    assert found["mae"]["blur"] == [3, 4, 5, 6, 7] and found["mae"]["noise"] == [2, 2, 2, 2, 1]
    expected = dict.fromkeys(CORRUPTIONS, 0) | {"blur": 1.5, "noise": -0.1}
    assert found["relative_degradation"] == pytest.approx(expected)
    assert found["mean_relative_degradation"] == pytest.approx((1.5 - 0.1) / 10)
    assert found["strengths"]["JPEG"] == list(CORRUPTIONS["JPEG"].strengths)


def test_its_interval_pairs_every_image_with_itself():
    random = np.random.default_rng(0)
    clean = random.gamma(2, 3, 200)
    same = degradation(np.repeat(clean[:, None], VERSIONS, axis=1) * np.r_[1, np.full(VERSIONS - 1, 1.3)])
    assert same["mean_relative_degradation_interval"] == pytest.approx([0.3, 0.3])  # however unlike the images
    assert same["clean_mae_interval"][1] - same["clean_mae_interval"][0] > 1
    some = clean[:, None] + random.normal(1, 1, (200, VERSIONS)) * np.r_[0, np.ones(VERSIONS - 1)]
    lower, upper = degradation(some)["mean_relative_degradation_interval"]
    assert lower < degradation(some)["mean_relative_degradation"] < upper


def test_few_samples_have_figures_without_intervals():
    found = degradation(np.full((29, VERSIONS), 2.0))
    assert found["clean_mae"] == 2 and found["clean_mae_interval"] is None
    assert found["mae_interval"]["blur"] == [None] * SEVERITIES
    plots = list(robustness_plots(found))
    assert len(plots) == len(CORRUPTIONS) and plots[0].svg
    many = degradation(np.full((30, VERSIONS), 2.0))
    assert many["clean_mae_interval"] == [2, 2] and list(robustness_plots(many))[0].svg


def test_without_samples_or_clean_errors_there_is_no_figure():
    assert degradation(np.full((2, VERSIONS), np.nan)) is None
    perfect = degradation(np.zeros((3, VERSIONS)))
    assert perfect["mean_relative_degradation"] is None and perfect["mae"]["blur"] == [0] * SEVERITIES
    json.dumps(perfect, allow_nan=False)
    assert "corrupted images" not in metrics_table_of(None) and "corrupted images" in metrics_table_of(perfect)


def metrics_table_of(robustness):
    return metrics_table(summarise(people(3)) | {"robustness": robustness})


def test_a_batch_holds_every_version_of_every_sample(index):
    of = index, ("face", "body"), SIDE
    refs = [SampleRef(0, 4), SampleRef(0, 2), SampleRef(0, 3, valid=False)]  # a body, both, a face
    clean, batch = ShardDataset(*of).read(refs), CorruptedDataset(*of).read(refs)
    assert len(batch) == 3 * VERSIONS and batch.sample.tolist() == [s for s in (4, 2, 3) for _ in range(VERSIONS)]
    for name, parts in {"face": {1: "all", 2: "all"}, "body": {0: "head", 1: "none"}}.items():
        images = getattr(batch, name)
        assert images.rows.tolist() == [row * VERSIONS + version for row in parts for version in range(VERSIONS)]
        versions = images.pixels.movedim(1, -1).numpy().reshape(2, VERSIONS, SIDE, SIDE, 3)
        squares = getattr(clean, name).pixels.movedim(1, -1).numpy()
        for number, (row, part) in enumerate(parts.items()):
            assert np.array_equal(versions[number, 0], squares[number])
            for version, (kind, severity) in enumerate(CELLS, start=1):
                expected = corrupt(squares[number], kind, severity, (0, refs[row].sample), part)
                assert np.array_equal(versions[number, version], expected), (name, kind, severity)
    assert batch.valid.reshape(3, VERSIONS).all(dim=1).tolist() == [True, True, False]


def test_workers_and_ranks_read_the_same(index):
    dataset = CorruptedDataset(index, ("face",), SIDE)
    samples = np.array([0, 3, 5, 6, 9, 11, 12])

    def read(batch_size, rank, world_size, workers=0):
        batches = BatchLoader(dataset, SubsetSampler(samples, batch_size, rank, world_size), workers)
        rows = {}
        for batch in batches:
            for pixels, row in zip(batch.face.pixels, batch.face.rows.tolist(), strict=True):
                if batch.valid[row]:
                    rows.setdefault(int(batch.sample[row]), []).append(pixels.clone())
        return {sample: torch.stack(images) for sample, images in rows.items()}

    alone = read(3, 0, 1)
    assert sorted(alone) == samples.tolist() and all(len(versions) == VERSIONS for versions in alone.values())
    ranks = [read(2, rank, 2) for rank in range(2)]
    assert not ranks[0].keys() & ranks[1].keys()
    for other in (ranks[0] | ranks[1], read(2, 0, 1, workers=1)):
        assert other.keys() == alone.keys() and all(torch.equal(other[sample], alone[sample]) for sample in alone)


def test_the_subset_is_drawn_of_known_ages_and_is_always_the_same(index):
    columns = index.columns
    every = choose(index, ("face",), None)
    assert every.tolist() == np.flatnonzero((columns["face_size"] > 0) & ~np.isnan(columns["age_lo"])).tolist()
    few, more = choose(index, ("face",), 4), choose(index, ("face",), 8)
    assert few.tolist() == choose(index, ("face",), 4).tolist() == sorted(few.tolist()) and set(few) < set(more)
    assert few.tolist() != every[:4].tolist() and set(more) < set(every)
    assert choose(index, ("face",), 1000).tolist() == every.tolist()
    nothing = ShardIndex("x", {}, columns | {"age_lo": np.full(SAMPLES, np.nan)})
    with pytest.raises(UserError, match="x: no sample has both an age and a face or body"):
        choose(nothing, ("face", "body"), None)


@pytest.fixture(scope="module")
def evaluated(dual, index, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    return evaluate(dual, index.folder, out, "face,both", report=False, robustness=True), out


def test_the_clean_error_is_that_of_the_evaluation(evaluated):
    metrics, out = evaluated
    assert json.loads((out / "metrics.json").read_text()) == metrics
    for section in metrics["inputs"].values():
        assert section["robustness"]["samples"] == section["n"]
        assert section["robustness"]["clean_mae"] == pytest.approx(section["mae"], abs=1e-4)
        assert section["robustness"]["clean_mae_interval"] == pytest.approx(section["intervals"]["mae"], abs=1e-4)


@pytest.mark.slow
def test_it_does_not_depend_on_the_batch_size(evaluated, dual, index, tmp_path):
    again = evaluate(dual, index.folder, tmp_path, "face,both", batch=16, report=False, robustness=True)
    for name, section in evaluated[0]["inputs"].items():
        assert close(section["robustness"], again["inputs"][name]["robustness"])


def test_without_the_option_nothing_is_measured(dual, index, tmp_path):
    assert "robustness" not in evaluate(dual, index.folder, tmp_path, report=False)


def test_the_command_prints_a_row_for_each_corruption(dual, index, tmp_path, capsys):
    main(["evaluate", "--checkpoint", f"{dual}", "--data", f"{index.folder}", "--out", f"{tmp_path}/o",
          "--workers", "0", "--robustness", "yes", "--robustness-samples", "5", "--report", "no"])  # fmt: skip
    robustness = json.loads((tmp_path / "o" / "metrics.json").read_text())["robustness"]
    assert robustness["samples"] == 5
    lines = capsys.readouterr().out.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("corrupted images"))
    assert f"clean MAE {robustness['clean_mae']:.2f} of 5" in lines[head]
    for line, (name, row) in zip(lines[head + 1 :], robustness["mae"].items(), strict=False):
        assert line.split()[-6:] == [
            *(f"{mae:.2f}" for mae in row),
            f"{robustness['relative_degradation'][name]:+.1%}",
        ]
        assert line.strip().startswith(name)
    assert lines[head + 11].split()[:2] == ["mean", f"{robustness['mean_relative_degradation']:+.1%}"]


@pytest.mark.slow
def test_two_ranks_find_what_one_finds(evaluated, dual, index, tmp_path):
    words = ["evaluate", "--checkpoint", f"{dual}", "--data", f"{index.folder}", "--out", f"{tmp_path}/o"]
    words += ["--inputs", "face,both", "--workers", "0", "--batch", "60", "--report", "no", "--robustness", "yes"]
    # On GPUs accelerate notices by itself that it is one of two; on CPUs it has to be told.
    codes, said = run_launched(TORCHRUN, 2, main, (words,), tmp_path)
    assert codes == [0, 0], said
    assert said.count("corrupted images") == 2  # one for each input, from one rank
    found = json.loads((tmp_path / "o" / "metrics.json").read_text())["inputs"]
    for name, section in evaluated[0]["inputs"].items():
        assert close(section["robustness"], found[name]["robustness"])
