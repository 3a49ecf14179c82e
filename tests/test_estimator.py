"""What a saved estimator needs to be itself again."""

from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.files import save_tensors
from mivolo_lite.images.packed import Images
from mivolo_lite.methods import METHODS

SPAN = {"min_age": 0, "max_age": 100}


def card(method="classification", **model):
    options = {"name": "single", "backbone": "test_resnet"} | model
    return Card(options, {"name": method}, dict(SPAN), image_size=32, data_digest="d", crop_policy={"face": "as it is"})


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_it_answers_the_same(method, tmp_path):
    torch.manual_seed(0)
    estimator = Estimator(card(method)).eval()
    estimator.method.fit_prior(torch.arange(101))
    face = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    estimator.save(tmp_path)
    loaded = Estimator.load(tmp_path)
    with torch.inference_mode():
        before, after = estimator(Images.of(face)), loaded(Images.of(face))
    assert torch.equal(before["age"], after["age"]) and torch.equal(before["gender"], after["gender"])
    age, gender = loaded.estimate(after)
    assert age.age.shape == (3,) and torch.isfinite(age.age).all() and gender.sum(1).allclose(torch.ones(3))


@pytest.mark.parametrize("method", METHODS)
def test_under_autocast_the_heads_and_the_decoding_are_those_of_float32(method):
    """The features alone are in bfloat16."""
    torch.manual_seed(0)
    options = [{"name": "mood", "classes": ["bad", "good"]}, {"name": "weight", "kind": "regression"}]
    estimator = Estimator(replace(card(method), tasks=options)).eval()
    estimator.method.fit_prior(torch.arange(101))
    face = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    features = []
    estimator.model.register_forward_hook(lambda *parts: features.append(parts[-1]))
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            found = estimator(Images.of(face))
            answer = estimator.estimate(found)
        estimator.model.forward = lambda *images: features[0].float()
        expected = estimator(Images.of(face))
        exact = estimator.estimate(expected)
    assert features[0].dtype == torch.bfloat16
    for name, output in expected.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], output), name
    assert torch.equal(answer[0].age, exact[0].age) and torch.equal(answer[0].mean, exact[0].mean)
    assert torch.equal(answer[1], exact[1])


def test_the_card_holds_what_inference_needs_and_decides_the_normalisation(tmp_path):
    Estimator(card()).save(tmp_path)
    written = yaml.safe_load((tmp_path / "model.yaml").read_text())
    assert written["span"] == SPAN and written["image_size"] == 32 and written["data_digest"] == "d"
    assert written["crop_policy"] == {"face": "as it is"} and set(written["normalisation"]) == {"mean", "std"}
    written["normalisation"] = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(written))
    loaded = Estimator.load(tmp_path)
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    assert loaded.normalise["face"](white).eq(1).all()


@pytest.mark.parametrize(
    "model, started_from, inputs",
    [
        ({}, {"weights": "gone.safetensors", "pretrained": True}, ("face",)),
        (
            {"name": "dual", "backbone": None, "face": "test_resnet", "body": "test_resnet"},
            {"face_weights": "gone.safetensors", "body_weights": "gone.safetensors"},
            ("face", "body"),
        ),
    ],
)
def test_what_training_started_from_need_not_be_there_any_more(model, started_from, inputs, tmp_path):
    options = {name: value for name, value in (card(**model).model).items() if value is not None}
    estimator = Estimator(Card(options, {"name": "classification"}, dict(SPAN), image_size=32))
    estimator.card.model |= started_from
    estimator.save(tmp_path)
    assert Estimator.load(tmp_path).inputs == inputs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_few_bits_are_loaded_and_checked(dtype, tmp_path):
    estimator = Estimator(card())
    estimator.save(tmp_path)
    few_bits = {name: w.to(dtype) if w.is_floating_point() else w for name, w in estimator.state_dict().items()}
    save_tensors(few_bits, tmp_path / "model.safetensors")
    for name, tensor in Estimator.load(tmp_path).state_dict().items():
        assert torch.equal(tensor, few_bits[name].to(tensor.dtype)), name
    few_bits["gender_head.bias"] = torch.full((2,), torch.nan).to(dtype)
    save_tensors(few_bits, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="gender_head.bias is not finite"):
        Estimator.load(tmp_path)


def test_another_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="no model.safetensors"):
        Estimator.load(tmp_path)


def test_weights_of_another_method_are_one_line(tmp_path):
    Estimator(card("coral")).save(tmp_path)
    written = yaml.safe_load((tmp_path / "model.yaml").read_text())
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(written | {"method": {"name": "or_cnn"}}))
    with pytest.raises(UserError, match="do not fit the model; missing: method.head.bias; unexpected") as error:
        Estimator.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_heads_are_float32_under_autocast(method):
    """Features in bfloat16 are read to the last of float32's digits."""
    torch.manual_seed(0)
    estimator = Estimator(card(method)).eval()
    estimator.method.fit_prior(torch.arange(101))
    face = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    kept = []
    estimator.model.register_forward_hook(lambda _, __, features: kept.append(features))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = estimator(Images.of(face))
    assert kept[0].dtype == torch.bfloat16
    with torch.inference_mode():
        torch.testing.assert_close(output["age"], estimator.method(kept[0].float()), rtol=0, atol=0)
        torch.testing.assert_close(output["gender"], estimator.gender_head(kept[0].float()), rtol=0, atol=0)


def damage(change):
    """A change of the card's values, as a test parameter."""
    return pytest.param(change, id=str(change)[:60])


@pytest.mark.parametrize(
    "change",
    [
        damage({"model": None}), damage({"model": {"name": "nothing"}}), damage({"model": {"name": ["single"]}}),
        damage({"model": {"name": "single", "backbone": "no_such_net"}}), damage({"model": {"name": "single", "a": 1}}),
        damage({"model": {"name": "single", "backbone": "test_resnet", "drop_rate": "much"}}),
        damage({"model": {"name": "single", "backbone": 7}}), damage({"model": {"name": "dual", "dim": 10**9}}),
        damage({"method": "regression"}), damage({"method": {"name": "classification", "decode": {}, "x": 1}}),
        damage({"method": {"name": "forest", "depth": 10**12}}), damage({"span": {"min_age": 9, "max_age": 3}}),
        damage({"span": {"min_age": 0}}), damage({"span": [0, 100]}), damage({"span": {"max_age": float("nan")}}),
        damage({"image_size": -1}), damage({"image_size": 10**9}), damage({"image_size": "32"}),
        damage({"image_size": True}), damage({"normalisation": {"mean": [0.0], "std": [1.0]}}),
        damage({"normalisation": {"mean": [0.0] * 3, "std": [0.0] * 3}}), damage({"tasks": {"a": 1}}),
        damage({"tasks": [{"name": "a", "kind": "other"}]}), damage({"tasks": [{"name": "a", "classes": 3}]}),
        damage({"calibration": {"gender_temperature": 0}}), damage({"calibration": [1]}), damage({"data_digest": 5}),
        damage({"tta": "mirror"}), damage({"tta": ["flip"]}),
        damage({"more": 1}), damage({1: 2}), damage({"metrics": "good"}), damage({"gender": 2}),
    ],
)  # fmt: skip
def test_a_card_that_cannot_be_meant_is_one_line(change, tmp_path):
    Estimator(card()).save(tmp_path)
    values = yaml.safe_load((tmp_path / "model.yaml").read_text()) | change
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="model.yaml|model.safetensors") as error:
        Estimator.load(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe\x00", b"a: [", b"- 1\n", b"!!python/object/apply:os.system [true]", b"[" * 100_000,
        b"x0: &x0 [1, 1]\n" + b"".join(b"x%d: &x%d [*x%d, *x%d]\n" % (i + 1, i + 1, i, i) for i in range(60)),
        "model: é".encode("utf-16"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_card_is_one_line(content, tmp_path):
    Estimator(card()).save(tmp_path)
    (tmp_path / "model.yaml").write_bytes(content)
    with pytest.raises(UserError, match="model.yaml") as error:
        Estimator.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-100],
        lambda data: data[:4],
        lambda data: b"",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" * 100 + data[108:],
        lambda data: b"<html>" + data,
    ],
)
def test_damaged_weights_are_one_line(change, tmp_path):
    Estimator(card()).save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match="model.safetensors: damaged, or no safetensors file") as error:
        Estimator.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda weights: weights.pop("gender_head.bias"), "missing: gender_head.bias"),
        (lambda weights: weights.update(more=torch.ones(1)), "unexpected: more"),
        (lambda weights: weights.update({"gender_head.bias": torch.ones(3)}), "wrong shape"),
        (lambda weights: weights.update({"gender_head.bias": torch.ones(2, dtype=torch.int64)}), "wrong type"),
        (lambda weights: weights.update({"gender_head.bias": torch.full((2,), torch.inf)}), "is not finite"),
    ],
)
def test_weights_of_another_estimator_are_one_line(change, message, tmp_path):
    Estimator(card()).save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_tensors(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        Estimator.load(tmp_path)


def test_a_run_its_best_and_a_checkpoint_with_averaged_weights_are_taken(tmp_path):
    best, last = Estimator(card()), Estimator(card())
    best.save(tmp_path / "best")
    checkpoint = tmp_path / "checkpoints" / "step-000000001"
    last.save(checkpoint)
    save_tensors(best.state_dict(), checkpoint / "ema.safetensors")
    for folder in (tmp_path, tmp_path / "best", checkpoint):
        found = Estimator.load(folder).state_dict()
        assert all(found[name].equal(value) for name, value in best.state_dict().items())


def test_weights_that_two_layers_share_are_saved_and_loaded(tmp_path):
    tied = Estimator(card())
    first, second = tied.model.backbone.layer1[0].conv2, tied.model.backbone.layer1[0].conv1
    first.weight = second.weight if first.weight.shape == second.weight.shape else first.weight
    tied.save(tmp_path)
    found = Estimator.load(tmp_path).state_dict()
    assert all(found[name].equal(value) for name, value in tied.state_dict().items())


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_of_images_is_the_models(channels_last):
    estimator = Estimator(card()).eval()
    estimator.channels_last = channels_last
    seen = []
    estimator.model.register_forward_pre_hook(lambda _, images: seen.append(images[0].pixels))
    estimator(Images.of(torch.zeros(2, 32, 32, 3, dtype=torch.uint8).movedim(-1, 1)))
    assert seen[0].is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("options", [{"input": "a\0b"}, {"drop_rate": float("nan")}, {"pretrained": []}])
def test_options_of_a_card_are_checked_as_those_of_a_run(options):
    with pytest.raises(UserError, match=f"model.{next(iter(options))}: "):
        Estimator(card(**options))


@pytest.mark.parametrize("method", METHODS)
def test_flipped_it_answers_an_image_and_its_mirror_image_alike(method):
    torch.manual_seed(0)
    estimator = Estimator(card(method)).eval()
    face = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        plain, mirrored = estimator(Images.of(face)), estimator(Images.of(face.flip(-1)))
        estimator.tta = "flip"
        flipped, both_ways = estimator(Images.of(face)), estimator(Images.of(face.flip(-1)))
    for name, output in flipped.items():
        assert torch.allclose(output, both_ways[name], atol=1e-5) and not torch.equal(output, plain[name]), name
        assert torch.allclose(output, (plain[name] + mirrored[name]) / 2, atol=1e-5), name


def test_multiscale_is_the_mean_of_flipped_answers_at_three_sizes():
    torch.manual_seed(0)
    estimator = Estimator(card("dldl")).eval()
    face = Images.of(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))
    with torch.inference_mode():
        estimator.use_tta("flip")
        answers = [estimator(face.resized(size)) for size in (16, 32, 48)]
        estimator.use_tta("multiscale")
        multiscale = estimator(face)
    assert estimator.scales == (16, 32, 48)
    for name, output in multiscale.items():
        assert torch.allclose(output, sum(answer[name] for answer in answers) / 3, atol=1e-5), name


def test_a_model_of_one_size_refuses_multiscale_in_one_line():
    model = {"name": "mivolo_d1_112", "pretrained": False}
    estimator = Estimator(Card(model, {"name": "regression"}, {"min_age": 0, "max_age": 100}, 112)).eval()
    with pytest.raises(UserError, match="multiscale: mivolo_d1_112 does not take images of 96, 112, 128 px; give flip"):
        estimator.use_tta("multiscale")
