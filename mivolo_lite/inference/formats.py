"""What ``mivolo-lite export`` writes. Its command line reads this module, so it imports no torch."""

from typing import Literal

Precision = Literal["fp32", "fp16"]
"""The backbone's numbers; heads and answers are float32 in either."""

GraphFormat = Literal["onnx", "torch"]
"""Formats of the whole estimator: ONNX, or a program of torch.export."""

Format = Literal[GraphFormat, "timm"]
"""``timm`` is the backbone's plain weights, without heads."""
