"""MiVOLO's published layout to this package's and back, through the command."""

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch

from mivolo_lite.cli import main
from mivolo_lite.convert.convert import convert
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.images.packed import Images
from tests.models.tiny import SIDE, publish_tiny_mivolos
from tests.shards.tiny_shards import make_shards

MODEL = {"name": f"mivolo_tiny_{SIDE}", "input": "face"}
METHOD = {"name": "regression", "normalise": True}
SPAN = {"min_age": 1, "max_age": 95}


@pytest.fixture(scope="module", autouse=True)
def tiny_variant():
    with pytest.MonkeyPatch.context() as patch:
        publish_tiny_mivolos(patch)
        yield


def made_here(folder, model=MODEL, method=METHOD):
    torch.manual_seed(0)
    Estimator(Card(dict(model), dict(method), dict(SPAN), image_size=SIDE)).save(folder)
    return folder


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    return made_here(tmp_path_factory.mktemp("here") / "best")


@pytest.fixture(scope="module")
def official(best):
    """The same in the published layout."""
    main(["convert", str(best), str(best.parent / "official.pth.tar")])
    return best.parent / "official.pth.tar"


def answers(folder):
    face = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    estimator = Estimator.load(folder)
    with torch.inference_mode():
        age, gender = estimator.estimate(estimator(Images.of(face)))
    return torch.cat([age.mean[:, None], *([] if gender is None else [gender])], dim=1)


@pytest.mark.slow
def test_there_and_back_it_answers_the_same(best, official, tmp_path):
    published = torch.load(official, weights_only=True)
    assert (published["min_age"], published["max_age"], published["avg_age"]) == (1, 95, 48)
    assert published["no_gender"] is False and published["state_dict"]["head.weight"].shape == (3, 48)
    main(["convert", str(official), str(tmp_path / "again")])
    torch.testing.assert_close(answers(tmp_path / "again"), answers(best), atol=1e-4, rtol=0)


def test_what_a_published_file_has_no_place_for_is_named(best, tmp_path, capsys):
    calibration = {"level": 0.9, "by": "all", "radius": 9.0, "radii": {}, "gender_temperature": 2.0}
    shutil.copytree(best, tmp_path / "best")
    replace(Card.load(best), tta="flip", calibration=calibration).save(tmp_path / "best")
    main(["convert", f"{tmp_path}/best", f"{tmp_path}/ours.pth.tar"])
    assert f"no place for the calibration and the tta of {tmp_path}/best: left out" in capsys.readouterr().err


@pytest.mark.slow
def test_without_gender_it_says_none_and_goes_back_as_it_came(best, official, tmp_path):
    published = torch.load(official, weights_only=True)
    for name in ("head.weight", "head.bias", "aux_head.weight", "aux_head.bias"):
        published["state_dict"][name] = published["state_dict"][name][2:].clone()
    torch.save(published | {"no_gender": True}, tmp_path / "age.pth.tar")
    main(["convert", str(tmp_path / "age.pth.tar"), str(tmp_path / "age")])
    torch.testing.assert_close(answers(tmp_path / "age"), answers(best)[:, :1], atol=1e-4, rtol=0)
    index = make_shards(tmp_path / "shards", [4])
    metrics = evaluate(tmp_path / "age", index.folder, tmp_path / "evaluation")
    assert metrics["n"] and metrics["gender"] is metrics["gender_accuracy"] is None and metrics["gender_n"] == 0
    main(["convert", str(tmp_path / "age"), str(tmp_path / "back.pth.tar")])
    back = torch.load(tmp_path / "back.pth.tar", weights_only=True)
    assert back["no_gender"] is True and len(back["state_dict"]["head.weight"]) == 1


@pytest.mark.slow
def test_what_is_no_mivolo_is_told_in_one_line(tmp_path, capsys):
    single = made_here(tmp_path / "single", {"name": "single", "backbone": "test_resnet"})
    other = made_here(tmp_path / "other", method={"name": "coral"})
    (tmp_path / "text.pth.tar").write_text("no checkpoint")
    for source, part in ((single, "single model"), (other, "regression"), (tmp_path / "text.pth.tar", "text.pth.tar")):
        try:
            main(["convert", str(source), str(tmp_path / "out")])
        except SystemExit as stop:
            assert stop.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and part in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content, part",
    [
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "is an HTML or XML page"),
        (b"", "is empty, not weights"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"\x80\x02cos\nsystem\nq\x00.", "holds the object os.system, and only tensors"),
        (bytes(range(128, 256)), "cannot be read as weights"),
        ({"state_dict": {}, "path": Path("x")}, "holds the object pathlib.PosixPath, and only tensors"),
        ({"state_dict": {}, "when": datetime(2026, 1, 1)}, "holds the object datetime.datetime, and only tensors"),
        ({"state_dict": {}, "min_age": [1], "max_age": "b", "avg_age": None}, "are not numbers"),
        ({"state_dict": {}, "min_age": 0, "max_age": 10**9, "avg_age": 5}, "are not whole years"),
        (
            {"state_dict": {"pos_embed": 3, "norm.weight": "x"}, "min_age": 1, "max_age": 95, "avg_age": 48},
            "no weights",
        ),
        ([1, 2], "holds a list"),
    ],
)
def test_what_is_no_checkpoint_is_told_by_what_it_is(content, part, tmp_path):
    source = tmp_path / "official.pth.tar"
    source.write_bytes(content) if isinstance(content, bytes) else torch.save(content, source)
    with pytest.raises(UserError, match=part) as error:
        convert(source, tmp_path / "out")
    message = str(error.value)
    assert message.startswith(str(source)) and message.isprintable() and "weights_only" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_default_is_the_packages_own_checkpoint_here_too(tmp_path):
    with pytest.raises(UserError, match="weights: is a single model; only MiVOLO's and SwinFace's"):
        convert("default", tmp_path / "out")


def test_what_a_killed_conversion_left_is_no_obstacle_and_what_a_user_keeps_is(best, tmp_path):
    (tmp_path / "official.pth.tar.partial").write_bytes(b"half")
    convert(best, tmp_path / "official.pth.tar")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "model.safetensors").write_bytes(b"half")
    convert(tmp_path / "official.pth.tar", tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["model.safetensors", "model.yaml"]
    with pytest.raises(UserError, match="already exists"):
        convert(best, tmp_path / "official.pth.tar")
