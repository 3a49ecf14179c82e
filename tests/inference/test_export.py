"""Exported files answer as the estimator does, everywhere that they are run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from mivolo_lite.card import DEFAULT
from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.images.packed import Images
from mivolo_lite.inference.detect import FaceDetector
from mivolo_lite.inference.export import DESCRIPTION, export
from mivolo_lite.inference.graph import Graph, answers
from mivolo_lite.inference.parity import require_parity
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.result_files import write_results
from mivolo_lite.inference.rows import row_of
from mivolo_lite.inference.work import Result
from mivolo_lite.models.mivolo_export import fold
from mivolo_lite.package_files import package_folder
from tests.documents import blocks
from tests.inference.exports import photos, small_estimator
from tests.inference.scenes import RULES, RedSquares, draw_face, photo

pytest.importorskip("onnx")


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Makes an estimator's file; parity is checked in the making."""

    def make(model, method="classification", name="model.onnx", **options):
        small_estimator(model, method, monkeypatch).save(tmp_path / "best")
        lines = export(tmp_path / "best", tmp_path / name, **options)
        assert len(lines) == (10 if model in ("dual", "mivolo_tiny") else 3)
        return tmp_path / name

    return make


@pytest.mark.slow
def test_half_precision_is_half_as_large_and_within_its_bound(exported):
    full, half = (exported("single", precision=name, name=f"{name}.onnx").stat().st_size for name in ("fp32", "fp16"))
    assert half < 0.7 * full


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["mivolo_lite"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
images = np.load(sys.argv[2])
answers = session.run(None, {name: images[name] for name in images})
meta = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
names = [entry.name for entry in session.get_outputs()]
print(json.dumps({"answers": {n: a.tolist() for n, a in zip(names, answers)}, "meta": meta}))
"""


@pytest.mark.slow
def test_the_snippet_of_the_page_gives_the_ages_of_predict(tmp_path, monkeypatch, capsys):
    (block,) = (block for block in blocks("python") if "onnxruntime" in block.text)
    framing = {"face_square": 0.95, "face_shift": 0.08}
    estimator = small_estimator(crop_policy=RULES | framing)
    estimator.save(tmp_path / "best")
    export(tmp_path / "best", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo((20, 30, 110), (200, 60, 41), (290, 200, 30))).save("photo.jpg", quality=95)
    (people,) = Predictor(estimator, FaceDetector(RedSquares())).predict("photo.jpg")
    Path("ages").mkdir()
    write_results([Result([row_of(person, "photo.jpg") for person in people])], Path("ages"), [])
    names: dict = {}
    exec(compile(block.text, str(block), "exec"), names)
    ages = [float(line.split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert ages == pytest.approx([person.age for person in people], abs=1e-3) and len({*ages}) == 3
    for shape in ((60, 31), (40, 200)):
        crop = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
        assert np.array_equal(names["letterbox"](crop), letterbox(crop, 48).transpose(2, 0, 1))


@pytest.mark.slow
def test_onnxruntime_alone_runs_a_file_and_reads_how(exported, tmp_path, monkeypatch):
    path = exported("dual")
    face, body = photos(3, 1), photos(3, 2)
    has_face, has_body = torch.tensor([True, False, True]), torch.tensor([False, True, True])
    inputs = {"face": face, "body": body, "has_face": has_face, "has_body": has_body}
    np.savez(tmp_path / "images.npz", **{name: value.numpy() for name, value in inputs.items()})
    words = [sys.executable, "-c", WITHOUT_TORCH, path, tmp_path / "images.npz"]
    found = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=120).stdout)
    estimator = small_estimator("dual", monkeypatch=monkeypatch)
    with torch.inference_mode():
        expected = answers(estimator, estimator(Images.of(face, has_face), Images.of(body, has_body), batch=3))
    assert found["answers"].keys() == expected.keys() == {"age", "age_probability", "gender", "glasses", "smile"}
    for name, value in expected.items():
        torch.testing.assert_close(torch.tensor(found["answers"][name]), value, atol=1e-3, rtol=0)
    assert expected["age"].std() > 0.1  # or equal answers would say little
    meta = found["meta"]
    assert list(meta["inputs"]) == list(inputs) and meta["preprocessing"]["image_size"] == 48
    assert meta["preprocessing"]["order"] == "RGB"
    assert {"letterbox", "face_square", "jpeg_quality"} <= meta["preprocessing"].keys()
    assert meta["outputs"]["gender"]["probabilities_of"] == ["M", "F"] and meta["intervals"]["radius"] == 7.5
    assert meta["outputs"]["age_probability"]["ages"] == [0, 100]
    assert meta["outputs"]["glasses"]["probabilities_of"] == ["no", "yes"]


@pytest.mark.slow
def test_a_program_of_torch_export_answers_and_says_how(exported):
    extra = {DESCRIPTION: ""}
    program = torch.export.load(exported("mivolo_tiny", "regression", "model.pt2", format="torch"), extra_files=extra)
    face, has = photos(4), torch.ones(4, dtype=torch.bool)
    assert len(program.module()(face, face, has, ~has)[0]) == 4
    assert json.loads(extra[DESCRIPTION])["outputs"]["age"]["unit"] == "years"


@pytest.mark.parametrize("model, which", [("single", "face"), ("dual", "face"), ("dual", "body")])
def test_timm_loads_a_backbones_weights(model, which, tmp_path, monkeypatch, capsys):
    estimator = small_estimator(model, monkeypatch=monkeypatch)
    estimator.save(tmp_path / "best")
    out = tmp_path / "backbone.safetensors"
    main(["export", "--checkpoint", f"{tmp_path}/best", "--out", f"{out}", "--format", "timm", "--input", which])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("timm.create_model("))
    loaded = eval(line, {"timm": timm}).eval()
    backbone = estimator.model.backbone if model == "single" else getattr(estimator.model, which).tokens.backbone
    normalised = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        assert loaded.forward_features(normalised).equal(backbone.forward_features(normalised))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, words, message",
    [
        ("single", ["--out", "best/model.yaml"], "already exists"),
        ("nobody", ["--out", "/dev/null/m.onnx"], "cannot be written"),
        ("nobody", ["--out", "/dev/null/m.safetensors", "--format", "timm"], "cannot be written"),
        ("single", ["--out", "weights.bin", "--format", "timm"], "name it weights.safetensors"),
        ("swinface", ["--out", "w.safetensors", "--format", "timm"], "takes every model"),
        ("single", ["--out", "m.onnx", "--format", "tflite"], "tflite"),
    ],
)
def test_what_cannot_be_exported_is_one_line(model, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if model != "nobody":  # what is refused before a model is loaded
        small_estimator(model).save("best")
    with pytest.raises(SystemExit) as stop:
        main(["export", "--checkpoint", "best", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message in error


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    small_estimator().save(tmp_path / "best")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'onnxruntime is not installed; pip install "mivolo-lite\[export\]"'):
        export(tmp_path / "best", tmp_path / "model.onnx")


@pytest.mark.parametrize("method", ["regression", "or_cnn"])
@pytest.mark.parametrize(
    "output, by, passes", [(0, 0.9e-3, True), (0, 2.5, False), (-1, 0.1, False), (0, float("nan"), False)]
)
def test_a_file_with_other_answers_is_noticed(method, output, by, passes, monkeypatch):
    estimator = small_estimator("dual", method, monkeypatch)
    graph = Graph(estimator)

    def run(inputs):
        with torch.inference_mode():
            found = list(graph(*inputs))
        found[output] = found[output] + by
        return found

    if passes:
        assert len(require_parity(estimator, graph, run, "fp32")) == 10
    else:
        with pytest.raises(UserError, match="differs by"):
            require_parity(estimator, graph, run, "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("model, tta", [("dual", "none"), ("single", "flip")])
@pytest.mark.parametrize("batch", [1, 3])
def test_opencvs_own_engine_answers_as_the_estimator(model, tta, batch, exported, tmp_path, monkeypatch):
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 reads no symbolic batch")
    path = exported(model, "dldl", tta=tta)  # a median, whose decoding has the most operators
    estimator = small_estimator(model, "dldl", monkeypatch)
    estimator.tta = tta
    names, images = estimator.inputs, [photos(batch, seed) for seed in range(len(estimator.inputs))]
    present = [torch.arange(batch) % 2 == index for index in range(2)] if len(names) > 1 else [None]
    net = cv2.dnn.readNetFromONNX(str(path), engine=cv2.dnn.ENGINE_NEW)
    for name, pixels, has in zip(names, images, present, strict=True):
        net.setInput(pixels.numpy(), name)
        if has is not None:
            net.setInput(has.numpy(), f"has_{name}")
    packed = {name: Images.of(*pair) for name, *pair in zip(names, images, present, strict=True)}
    with torch.inference_mode():
        expected = answers(estimator, estimator(**packed, batch=batch))
    found = dict(zip(expected, net.forward(list(expected)), strict=True))
    for name, value in expected.items():
        torch.testing.assert_close(torch.from_numpy(found[name]).reshape(value.shape), value, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_opencv_alone_goes_from_a_photo_to_ages(tmp_path, monkeypatch, capsys):
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 reads no symbolic batch")
    (block,) = (block for block in blocks("python") if "FaceDetectorYN" in block.text)
    canvas = np.full((400, 400, 3), 90, np.uint8)
    draw_face(canvas, 150, 200, 80)
    cv2.imwrite(str(tmp_path / "photo.jpg"), cv2.GaussianBlur(canvas, (5, 5), 0)[..., ::-1])
    export(DEFAULT, tmp_path / "model.onnx")
    shutil.copy(package_folder("weights") / "yunet.onnx", tmp_path)
    ((person,),) = Predictor.load().predict([tmp_path / "photo.jpg"])
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(block.text, str(block), "exec"), found)
    assert (found["x"], found["y"], found["width"]) == (*person.face[:2], person.face[2] - person.face[0])
    assert found["age"][0] == pytest.approx(person.age, abs=8), "without a JPEG in between"
    assert found["gender"].sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_program_of_torch_export_has_operators_that_core_ml_converts(exported):
    program = torch.export.load(exported("single", "dldl", "model.pt2", format="torch"))
    assert torch.ops.aten.addcmul.default not in {node.target for node in program.graph.nodes}


@pytest.mark.parametrize("size, stride", [((6, 6), 2), ((5, 7), 2), ((4, 4), 1), ((7, 7), 3)])
def test_the_transposed_convolution_is_fold(size, stride):
    rows, columns = ((side - 1) // stride + 1 for side in size)
    windows = torch.randn(2, 3 * 9, rows, columns)
    expected = F.fold(windows.flatten(2), size, 3, padding=1, stride=stride)
    torch.testing.assert_close(fold(windows, 3, size, 3, 1, stride), expected)


@pytest.mark.slow
def test_flipped_a_file_answers_an_image_and_its_mirror_image_alike(exported):
    path = exported("single", "regression", tta="flip")
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    (entry,) = session.get_inputs()
    face = np.random.default_rng(0).integers(0, 256, (2, 3, *entry.shape[2:]), dtype=np.uint8)
    ages = [session.run(None, {entry.name: image})[0] for image in (face, np.ascontiguousarray(face[..., ::-1]))]
    assert np.allclose(*ages, atol=1e-3)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--out", "b.onnx", "--tta", "multiscale"], "a graph takes images of one size, so not --tta multiscale"),
        (["--out", "b.safetensors", "--format", "timm", "--tta", "flip"], "--tta does nothing for --format timm"),
        (["--out", "b.onnx", "--input", "body"], "--input is for --format timm"),
        (["--out", "b.safetensors", "--format", "timm", "--input", "body"], "default looks at the face alone"),
    ],
)
def test_options_of_another_format_or_model_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["export", "--checkpoint", "default", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message in error
