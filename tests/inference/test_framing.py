"""Data sets of whole faces say how these are framed, and photos are cut alike."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import BrokenJpeg, decode
from mivolo_lite.inference import framing
from mivolo_lite.inference.cutting import Cutter
from mivolo_lite.inference.detect import FaceDetector, open_detector
from mivolo_lite.inference.framing import measure_framing
from mivolo_lite.inference.people import Located
from mivolo_lite.packing.crops import CropRules, cut_face
from mivolo_lite.shards.index import ShardIndex
from tests.inference.scenes import RedSquares, photo
from tests.shards.tiny_shards import make_shards

RED = FaceDetector(RedSquares())


def chips(count: int, left: int = 25, top: int = 15, side: int = 50) -> list[np.ndarray]:
    return [photo((left, top, side), width=100, height=100, seed=seed) for seed in range(count)]


@pytest.mark.parametrize("size", [60, 100, 400])
def test_the_square_and_the_shift_of_a_face_in_its_image(size):
    resized = [np.asarray(Image.fromarray(chip).resize((size, size))) for chip in chips(12)]
    assert measure_framing(resized, RED) == {
        "face_square": pytest.approx(2.0, abs=0.08), "face_shift": pytest.approx(0.2, abs=0.03), "face_boxes": "red",
    }  # fmt: skip


def test_too_few_faces_say_nothing():
    nothing = [np.zeros((100, 100, 3), np.uint8)] * 13
    assert measure_framing(chips(9), RED) is None and measure_framing(chips(12) + nothing, RED) is None
    assert measure_framing(chips(13) + nothing, RED) is not None


@pytest.mark.parametrize("shape", [(1, 300, 3), (300, 1, 3), (1, 1, 3)])
def test_images_of_any_shape_are_looked_at(shape):
    assert measure_framing([np.zeros(shape, np.uint8)], RED) is None


def test_only_faces_that_can_be_decoded_are_measured(tmp_path, monkeypatch):
    index, jpegs = make_shards(tmp_path, [12]), []

    def decode_all_but_the_first(jpeg):
        jpegs.append(jpeg)
        if len(jpegs) == 1:
            raise BrokenJpeg("cut off")
        return decode(jpeg)

    monkeypatch.setattr(framing, "decode", decode_all_but_the_first)
    faces = int((index.columns["face_size"] > 0).sum())
    assert len(list(framing._faces(index))) == faces - 1 and len(jpegs) == faces < 12
    monkeypatch.setattr(framing, "FACES", 3)
    assert len(list(framing._faces(index))) == 3
    monkeypatch.setattr(framing, "is_whole_face", lambda policy: True)
    index.columns["face_size"][:] = 0
    assert framing.record_framing([index]) == ""


@pytest.fixture
def utkface(tmp_path, monkeypatch):
    monkeypatch.setattr(framing, "open_detector", lambda *_: RED)
    (tmp_path / "chips").mkdir()
    for number, chip in enumerate(chips(40)):
        Image.fromarray(chip).save(tmp_path / "chips" / f"{number + 1}_0_0_2017{number:04}.jpg", quality=95)
    return tmp_path


def test_packing_and_indexing_record_it_and_predictions_follow_it(utkface, capsys):
    main(["pack", "utkface", "--images", f"{utkface}/chips", "--out", f"{utkface}/out", "--workers", "1"])
    assert "faces are framed by squares of 2.0" in capsys.readouterr().out
    policies = [ShardIndex.load(utkface / "out" / split).info["crop_policy"] for split in ("train", "val")]
    measured = policies[0]["framing"]
    assert policies[0] == policies[1] and measured["face_square"] == pytest.approx(2, abs=0.05)
    main(["index", f"{utkface}/out/train"])
    again = ShardIndex.load(utkface / "out" / "train").info["crop_policy"]["framing"]
    assert again["face_shift"] == pytest.approx(measured["face_shift"], abs=0.03)
    cutter = Cutter(policies[0], ("face",), False, "red")
    assert (cutter.rules.face_square, cutter.rules.face_shift) == (measured["face_square"], measured["face_shift"])
    (note,) = cutter.notes
    assert "as those images are framed" in note
    image = photo((100, 60, 60))
    (crops,) = cutter(image, [Located((100.0, 60.0, 160.0, 120.0), None, 0.9)])
    assert crops == cutter(image, [Located((100.0, 60.0, 160.0, 120.0), None, 0.9)])[0] and crops.face is not None
    assert "those of other are cut differently" in Cutter(policies[0], ("face",), False, "other").notes[1]


def test_without_a_detector_or_faces_it_is_said(utkface, monkeypatch, capsys):
    monkeypatch.setattr(framing, "open_detector", lambda *_: FaceDetector(RedSquares(), 1))
    main(["pack", "utkface", "--images", f"{utkface}/chips", "--out", f"{utkface}/out", "--workers", "1"])
    assert "not measured, red finds too few of 34" in capsys.readouterr().out
    policy = ShardIndex.load(utkface / "out" / "train").info["crop_policy"]
    assert (
        "framing" not in policy and "crops are the detector's boxes" in Cutter(policy, ("face",), False, None).notes[0]
    )


@pytest.mark.parametrize("value", ["2", {"face_square": -1}, {"face_square": "2"}, {"face_shift": None}])
def test_a_damaged_card_is_no_traceback(value):
    with pytest.raises(UserError, match="face_square|crop_policy"):
        Cutter({"crop_size": 64, "face": "its own", "framing": value}, ("face",), False, None)


@pytest.mark.slow
@pytest.mark.skipif("FAIRFACE_DIR" not in os.environ, reason="needs FAIRFACE_DIR (photos of heads and shoulders)")
@pytest.mark.parametrize("rules", [CropRules(face_square=1.0, face_shift=0.1), CropRules(face_square=1.3)])
def test_the_detector_sees_in_chips_the_boxes_that_it_saw_in_photos(rules):
    detector, cut = open_detector(), []
    for path in sorted(Path(os.environ["FAIRFACE_DIR"]).rglob("*.jpg"))[:60]:
        image = np.asarray(Image.open(path).convert("RGB"))
        faces = [found.box for found in detector(image) if found.box[2] - found.box[0] > 60]
        cut += [cut_face(image, faces[0], rules)] if faces else []
    chips = [chip for chip in cut if abs(chip.shape[0] - chip.shape[1]) < 3]  # not cut off by the photo's border
    found = measure_framing(chips, detector)
    assert found["face_square"] == pytest.approx(rules.face_square, abs=0.05)
    assert found["face_shift"] == pytest.approx(rules.face_shift, abs=0.04)
