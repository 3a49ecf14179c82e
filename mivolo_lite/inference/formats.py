"""Formats of ``mivolo-lite export``. Its command line reads this module, so it does not import torch."""

from typing import Literal

Precision = Literal["fp32", "fp16"]
"""The precision of the backbone; heads and answers are always float32."""

GraphFormat = Literal["onnx", "torch"]
"""Formats of the whole estimator: ONNX, or a program of torch.export."""

Format = Literal[GraphFormat, "timm"]
"""``timm`` is the backbone's plain weights, without heads."""
