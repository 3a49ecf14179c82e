"""From photos to people, in Python."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mivolo_lite import Predictor
from mivolo_lite.card import NO_AGES
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.align import align
from mivolo_lite.images.jpeg import decode
from mivolo_lite.inference import predictor as predictor_module
from mivolo_lite.inference.cutting import Cutter
from mivolo_lite.inference.detect import FaceDetector, open_detector
from mivolo_lite.inference.flags import flags_of
from mivolo_lite.inference.people import Located
from mivolo_lite.inference.predictor import as_array, choose_device
from mivolo_lite.inference.windows import Detection
from mivolo_lite.packing.sources.cutting import Crops
from tests.inference.scenes import RULES, RedSquares, photo, tiny_estimator

TWO = photo((20, 30, 80), (200, 60, 64))


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny_estimator(), FaceDetector(RedSquares()))


def test_arrays_pil_images_paths_and_urls_give_the_same_people(predictor, tmp_path):
    Image.fromarray(TWO).save(tmp_path / "two.png")
    images = [tmp_path / "two.png", f"file://{tmp_path}/two.png", TWO, Image.fromarray(TWO)]
    path, url, array, image = predictor.predict(images)
    assert len(path) == 2 and path == url == array == image
    (alone,) = predictor.predict(str(tmp_path / "two.png"))
    assert [one.age for one in alone] == pytest.approx([one.age for one in path], abs=1e-4)
    first, second = path
    assert first.face == (20, 30, 100, 110) and second.face == (200, 60, 264, 124)
    assert first.age != second.age and 0 <= first.age <= 100 and first.age_spread > 0
    assert first.gender in ("M", "F") and 0.5 <= first.gender_probability <= 1
    assert first.inputs == ("face",) and first.body is None and first.score == 0.9 and first.age_interval is None


def test_no_face_is_nobody_and_the_others_keep_their_place(predictor):
    nobody, two = predictor.predict([photo(), TWO])
    assert nobody == [] and len(two) == 2


def test_batches_and_threads_change_no_answer(predictor):
    photos = [photo((20, 30, 40 + number), seed=number) for number in range(9)]
    expected = [one.age for (one,) in predictor.predict(photos)]
    small = Predictor(predictor.estimator, predictor.find_faces, batch=2)
    assert [one.age for (one,) in small.predict(photos)] == pytest.approx(expected, abs=1e-4)
    with ThreadPoolExecutor(4) as pool:
        found = [one.age for ((one,),) in pool.map(predictor.predict, photos)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_calibrated_checkpoints_give_intervals_and_the_gender_its_temperature():
    calibration = {"level": 0.9, "by": "all", "radius": 7.0, "radii": {}, "gender_temperature": 4.0}
    plain, calibrated = tiny_estimator(), tiny_estimator(calibration=calibration)
    ((before, _),) = Predictor(plain, FaceDetector(RedSquares())).predict([TWO])
    ((after, _),) = Predictor(calibrated, FaceDetector(RedSquares())).predict([TWO])
    assert after.age == before.age
    assert after.age_interval == pytest.approx((max(0, after.age - 7), min(120, after.age + 7)))
    assert after.gender == before.gender and after.gender_probability < before.gender_probability


def test_ages_of_a_model_that_learnt_none_come_with_a_note():
    assert NO_AGES in Predictor(tiny_estimator(age=False), FaceDetector(RedSquares())).notes
    assert NO_AGES not in Predictor(tiny_estimator(), FaceDetector(RedSquares())).notes


def test_tasks_are_answered():
    tasks = [{"name": "mood", "classes": ["bad", "good"]}, {"name": "weight", "kind": "regression"}]
    ((first, _),) = Predictor(tiny_estimator(tasks=tasks), FaceDetector(RedSquares())).predict([TWO])
    assert first.tasks["mood"].value in ("bad", "good") and 0.5 <= first.tasks["mood"].probability <= 1
    assert isinstance(first.tasks["weight"].value, float) and first.tasks["weight"].probability is None


def test_bodies_are_guessed_by_the_rule_shown_as_given_or_not_at_all():
    estimator, faces = tiny_estimator("both"), FaceDetector(RedSquares())
    ((guessed, _),) = Predictor(estimator, faces).predict([TWO])
    ((hidden, _),) = Predictor(estimator, faces, persons="none").predict([TWO])
    assert guessed.body == (-60, -10, 180, 430) and guessed.inputs == ("face", "body")
    assert hidden.body is None and hidden.inputs == ("face",) and hidden.age != guessed.age
    found = Predictor(estimator, faces, persons=lambda image: [Detection((10.0, 20.0, 120.0, 230.0), 0.8)])
    first, second = found.predict([TWO])[0]
    assert first.body == (10, 20, 120, 230) and first.inputs == ("face", "body")
    assert second.body is None and second.inputs == ("face",)


def test_what_cannot_be_done_as_in_training_is_said():
    def notes(policy, inputs="face", **options):
        return " ".join(Predictor(tiny_estimator(inputs, crop_policy=policy), RedSquares(), **options).notes)

    assert notes(RULES) == "" and notes(RULES | {"face_boxes": "red"}) == ""
    assert "boxes of yunet" in notes(RULES | {"face_boxes": "yunet"})
    assert "does not say how" in notes({})
    assert "not cut out of photos" in notes({"face": "the data set's own image"})
    assert "different rules" in notes({"a": RULES, "b": RULES | {"crop_size": 32}})
    assert notes({"a": RULES, "b": RULES}) == ""
    assert "not guessed from the face" in notes(RULES, "both")
    assert notes(RULES | {"body_from_face": True}, "both") == "" == notes(RULES, "both", persons="none")
    assert notes(RULES, "both", persons=RedSquares()) == "" and "faces alone" in notes(RULES, persons=RedSquares())


def test_faces_are_aligned_where_training_aligned_them_and_landmarks_are_known():
    landmarks = np.array([[40, 50], [80, 54], [62, 70], [45, 92], [78, 94]], float)
    person = Located((20.0, 30.0, 100.0, 110.0), landmarks=landmarks)
    cut = Cutter(RULES | {"align": True}, ("face",), False, "yunet")
    ((face, _, _),) = cut(TWO, [person])
    difference = decode(face).astype(int) - align(TWO, landmarks, RULES["crop_size"])
    assert np.abs(difference).mean() < 4 and cut.notes == []
    upright = Cutter(RULES | {"align": True}, ("face",), False, None)
    assert upright(TWO, [person._replace(landmarks=None)]) == Cutter(RULES, ("face",), False, None)(TWO, [person])
    assert "aligned by landmarks" in upright.notes[0]


def test_whole_images_as_faces_are_said():
    assert "whole images are the face" in Cutter(RULES | {"whole": "face"}, ("face",), False, None).notes[0]


def test_a_face_outside_the_photo_has_no_age_but_a_reason(predictor):
    ((person,),) = predictor.estimate([TWO], [[Located((-50.0, -50.0, -10.0, -10.0))]])
    assert person.age is None and person.inputs == () and any("under 5 px" in flag for flag in person.flags)


def test_a_face_is_flagged_small_blurred_or_cut_off(predictor):
    sharp = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    soft = np.full((200, 200, 3), 90, np.uint8) + np.linspace(0, 90, 200).astype(np.uint8)[:, None, None]
    boxes = {"small": (10, 10, 34, 34), "cut": (-30, 10, 60, 100), "fine": (10, 10, 100, 100)}
    places = [Located(tuple(map(float, box))) for box in boxes.values()]
    (found, (blurred,)) = predictor.estimate([sharp, soft], [places, places[2:]])
    assert [one.flags for one in found] == [("too small to trust",), ("cut off",), ()] and blurred.flags == ("blurred",)


@pytest.mark.parametrize(
    "lowest, highest, flags",
    [(0, 30, ("dark",)), (0, 60, ()), (200, 255, ()), (250, 255, ("overexposed",))],
)
def test_a_face_is_dark_or_overexposed_whatever_is_behind_it(lowest, highest, flags):
    rng = np.random.default_rng(0)
    for behind in (0, 255):
        image = np.full((200, 200, 3), behind, np.uint8)
        image[40:160, 40:160] = rng.integers(lowest, highest + 1, (120, 120, 3))
        place = (20.0, 20.0, 180.0, 180.0)
        assert flags_of(image, Located(place)) == flags
        assert flags_of(image, Located(None, place)) == ()  # of clothes, it is not known


def test_a_turned_head_shows_in_the_landmarks(predictor):
    eyes = [(30, 40), (70, 40)]
    for nose, expected in (((50, 60), ()), ((75, 60), ("turned away",))):
        landmarks = np.array([*eyes, nose, (35, 80), (65, 80)], float)
        place = Located((10.0, 10.0, 100.0, 100.0), landmarks=landmarks)
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        ((person,),) = predictor.estimate([noise], [[place]])
        assert person.flags == expected


FIVE = np.array([(35, 45), (75, 45), (55, 65), (40, 85), (70, 85)], float)
"""The landmarks of a face at 10, 10, 100, 100."""


@pytest.mark.parametrize("left, top", [(-25, 0), (115, 0), (0, -40), (0, 120)])
def test_a_face_whose_eye_or_mouth_lies_at_the_photos_edge_is_cut_off(left, top):
    """Its box ends at the edge, and not beyond it."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)

    def flags(left, top):
        corners = np.clip(np.array([10.0, 10, 100, 100]) + [left, top, left, top], 0, 200)
        return flags_of(noise, Located(tuple(corners.tolist()), landmarks=FIVE + (left, top)))

    assert flags(left, top) == ("cut off",)
    assert flags(left * 0.4, top * 0.25) == () == flags(0, 0)


class BrightForehead:
    """Finds one face anywhere, and is surer of it where the upper half of what it sees is far brighter."""

    name, side = "forehead", 4096

    def __call__(self, image):
        upper, lower = np.array_split(image, 2)
        return [Detection((60.0, 60.0, 140.0, 140.0), 0.9 if upper.mean() > lower.mean() + 50 else 0.8)]


@pytest.mark.parametrize("quarters", range(4))
def test_a_photo_that_lies_on_its_side_is_flagged(quarters):
    rng = np.random.default_rng(0)
    upright = np.concatenate([rng.integers(90, 256, (100, 200, 3)), rng.integers(0, 60, (100, 200, 3))])
    lying = np.ascontiguousarray(np.rot90(upright.astype(np.uint8), quarters))
    ((person,),) = Predictor(tiny_estimator(), FaceDetector(BrightForehead())).predict(lying)
    assert person.flags == (("not upright",) if quarters else ())
    assert flags_of(lying, Located(person.face)) == ()  # of boxes from a file it is not known
    assert flags_of(lying, Located(person.face), BrightForehead()) == ()
    assert flags_of(lying, Located(person.face, None, 0.95), BrightForehead()) == ()  # of sure ones, it is


@pytest.mark.slow
@pytest.mark.skipif("FAIRFACE_DIR" not in os.environ, reason="FAIRFACE_DIR: no photos")
@pytest.mark.parametrize("quarters", range(4))
def test_photos_that_lie_on_their_side_are_known_from_upright_ones(quarters):
    detector = open_detector()
    photos = [as_array(path) for path in sorted(Path(os.environ["FAIRFACE_DIR"]).glob("*.jpg"))[:40]]
    turned = [np.ascontiguousarray(np.rot90(whole, quarters)) for whole in photos]
    found = [(whole, detector(whole)[0]) for whole in turned if detector(whole)]
    flagged = ["not upright" in flags_of(whole, Located(face.box, None, face.score), detector) for whole, face in found]
    assert len(found) > 15 and (np.mean(flagged) > 0.9 if quarters else not any(flagged))


@pytest.mark.slow
@pytest.mark.skipif(
    not {"FAIRFACE_DIR", "UTKFACE_DIR"} <= set(os.environ), reason="FAIRFACE_DIR, UTKFACE_DIR: no photos"
)
def test_photos_that_end_in_a_face_are_known_from_chips():
    detector = open_detector()
    photos = [as_array(path) for path in sorted(Path(os.environ["FAIRFACE_DIR"]).glob("*.jpg"))[:40]]
    chips = [as_array(path) for path in sorted(Path(os.environ["UTKFACE_DIR"]).rglob("*.jpg"))[:40]]
    halves = []
    for number, whole in enumerate(photos):
        for face in detector(whole)[:1]:
            x, y = np.reshape(face.box, (2, 2)).mean(0).astype(int)
            halves.append(np.ascontiguousarray((whole[:, x:], whole[:, :x], whole[:y])[number % 3]))
    assert _share_cut_off(detector, halves) >= 0.8 and _share_cut_off(detector, chips) <= 0.05


def _share_cut_off(detector, images) -> float:
    found = [(image, face) for image in images for face in detector(image)[:1]]
    assert len(found) > 20
    return np.mean(
        ["cut off" in flags_of(image, Located(face.box, None, 1.0, face.landmarks)) for image, face in found]
    )


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_an_array_that_is_no_image_is_one_line(predictor, image):
    with pytest.raises(UserError, match="uint8 RGB"):
        predictor.predict([image])


@pytest.mark.parametrize("image", [b"bytes", None, [TWO], Image.new("F", (9, 9)), Image.new("RGB", (0, 4))])
def test_what_is_no_image_is_one_line(predictor, image):
    with pytest.raises(UserError, match="image"):
        predictor.predict([image])


@pytest.mark.parametrize("image", [b"bytes", BytesIO(b"lines\n"), None, 3])
def test_what_is_no_image_is_named_alone_too(predictor, image):
    with pytest.raises(UserError, match=f"an image of type {type(image).__name__}: give a path"):
        predictor.predict(image)


def test_an_iterator_of_photos_is_not_held_as_a_whole(predictor, monkeypatch):
    monkeypatch.setattr(predictor_module, "_HELD_BYTES", 2 * TWO.size)
    held, estimate = [], predictor.estimate
    monkeypatch.setattr(
        predictor, "estimate", lambda images, places: held.append(len(images)) or estimate(images, places)
    )
    photos = [TWO, photo(), TWO, TWO, photo((20, 30, 80))]
    assert [len(people) for people in predictor.predict(iter(photos))] == [2, 0, 2, 2, 1]
    assert held == [3, 2]


FORKED = """
import multiprocessing
import torch
from mivolo_lite import Predictor
from tests.inference.scenes import photo

torch.set_num_threads(2)
predictor = Predictor.load("best")
image = photo((20, 30, 80))
faces = [predictor.locate(image)]
expected = predictor.estimate([image], faces)
torch.ones(1 << 20).add(1)  # with both threads

def estimate(_):
    torch.ones(1 << 20).add(1)
    return predictor.estimate([image], [predictor.locate(image)])

with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.map_async(estimate, [0]).get(30) == [expected]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_forked_processes_compute_with_a_predictor(tmp_path):
    tiny_estimator().save(tmp_path / "best")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", FORKED], cwd=tmp_path, env=environ, check=True, timeout=300)


def test_a_predictor_is_pickled(predictor):
    original = Predictor(predictor.estimator, open_detector())
    copied = pickle.loads(pickle.dumps(original))
    assert copied.predict(TWO) == original.predict(TWO)
    place = [[Located((20.0, 30.0, 100.0, 110.0))]]
    assert copied.estimate([TWO], place) == original.estimate([TWO], place)


def test_a_pil_image_that_cannot_be_decoded_is_one_line(predictor):
    content = BytesIO()
    Image.fromarray(TWO).save(content, "JPEG")
    with pytest.raises(UserError, match="image: .*truncated"):
        predictor.predict(Image.open(BytesIO(content.getvalue()[:2000])))


@pytest.mark.parametrize(
    "option, message",
    [
        ({"tta": "Flip"}, "tta 'Flip': give one of none, flip, multiscale"),
        ({"half": "no"}, "half 'no': give True or False"),
        ({"compile": "no"}, "compile 'no': give True or False"),
        ({"batch": 0}, "batch 0: give the people of one forward pass, a whole number above 0"),
        ({"batch": -1}, "batch -1: give"),
        ({"batch": 2.5}, "batch 2.5: give"),
        ({"min_score": 70}, "min_score 70: give a number from 0 to 1"),
        ({"min_score": float("nan")}, "min_score nan: give"),
    ],
)
def test_an_impossible_option_is_one_line(option, message):
    with pytest.raises(UserError, match=message):
        Predictor.load(**option)


def test_people_without_what_the_model_looks_at_have_a_reason():
    cutter = Cutter({}, ("body",), guess_bodies=False, detector=None)
    ((face, body, missing),) = cutter(TWO, [Located((20, 30, 100, 110))])
    assert face is body is None and missing == [("", "no body")]
    (person,) = Predictor(tiny_estimator(), None).estimate_crops([Crops(None, b"a body")])
    assert person.age is None and person.flags == ("no face",)


def test_a_file_that_is_no_image_is_named(predictor, tmp_path):
    (tmp_path / "a.jpg").write_text("<html>")
    with pytest.raises(UserError, match="a.jpg: unreadable image: it is an HTML"):
        predictor.predict(tmp_path / "a.jpg")


def test_importing_the_package_imports_no_torch():
    script = "import sys, mivolo_lite, mivolo_lite.cli.entry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


@pytest.mark.parametrize(
    "name, reason", [("meta", ""), ("hpu", ""), ("cuda:99", ""), ("gpu", "no such device"), ("", "no such device")]
)
def test_a_device_that_computes_nothing_here_is_one_line(name, reason):
    with pytest.raises(UserError, match=rf"--device {name}: not usable here \({reason}.*\); try cpu"):
        choose_device(name)


def test_a_model_of_bodies_alone_that_is_shown_none_is_one_line(tmp_path):
    card = replace(tiny_estimator().card, model={"name": "single", "backbone": "test_resnet", "input": "body"})
    Estimator(card).save(tmp_path)
    with pytest.raises(UserError, match="--persons none: the model looks at bodies alone"):
        Predictor.load(tmp_path, persons="none", device="cpu")
    assert Predictor.load(tmp_path, detector=None, persons="none", device="cpu").estimator  # the boxes are given later


def test_intervals_that_were_calibrated_with_another_tta_are_noted():
    estimator = tiny_estimator()
    estimator.card.calibration = {"level": 0.9}
    note = "the age intervals were calibrated with --tta none, not flip"
    assert note not in Predictor(estimator, None).notes
    estimator.tta = "flip"
    assert note in Predictor(estimator, None).notes


def test_flipped_an_image_and_its_mirror_image_give_the_same_age():
    """To a year: the box's rounding and the crops' JPEG know left from right."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    image, face = cv2.resize(cv2.resize(noise, (6, 6)), (128, 128)), [Located((4, 4, 124, 124), None)]
    images = image, np.ascontiguousarray(image[:, ::-1])
    ages = {}
    for tta in ("none", "flip"):
        predictor = Predictor.load(detector=None, persons=None, device="cpu", tta=tta)
        (one,), (other,) = predictor.estimate(images, [face, face])
        ages[tta] = abs(one.age - other.age)
    assert ages["flip"] <= 1 < ages["none"]
