"""Writes ONNX files: operators that TensorRT has, a symbolic batch size, and the description in the metadata."""

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mivolo_lite.errors import UserError
from mivolo_lite.inference.graph import Graph
from mivolo_lite.inference.parity import Run
from mivolo_lite.inference.plain_operators import PLAIN

OPSET, BATCH = 18, "batch"

MOST_BYTES = 2**31 - 1
"""Largest ONNX file in bytes, as for any protobuf message."""


def write_onnx(program: ExportedProgram, graph: Graph, description: dict[str, Any], path: Path) -> None:
    """Write a program as an ONNX file.

    Args:
        program: the traced graph.
        graph: has the names of inputs and outputs.
        description: a value for each key of the file's metadata, written as JSON.
        path: of the file.

    Raises:
        UserError: the packages of ``mivolo-lite[export]`` are missing, or the model is too large for such a file.
    """
    require_onnx()
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    if sum(tensor.nbytes for tensor in graph.state_dict().values()) > MOST_BYTES:
        raise UserError("export: the model is larger than 2 GB, which no ONNX file holds; try --precision fp16")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision's operators, unused here
    with warnings.catch_warnings(action="ignore"):  # warnings of inputs that share the dimension
        onnx_program = torch.onnx.export(
            program.run_decompositions(PLAIN),
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            opset_version=OPSET,
            dynamic_shapes=[{0: BATCH} for _ in graph.input_names],  # the program does not keep its dimension's name
            dynamo=True,
            verbose=False,
        )
    assert onnx_program is not None  # torch returns None if it writes the file itself
    ClearMetadataAndDocStringPass()(onnx_program.model)  # the exporter adds stack traces with this machine's paths
    onnx_program.model.metadata_props.update({key: json.dumps(value) for key, value in description.items()})
    onnx_program.save(path, external_data=False)


def open_onnx(path: Path) -> Run:
    """An ONNX file, run by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        arrays = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
        return [torch.from_numpy(array) for array in arrays]

    return run


def require_onnx() -> None:
    """Raise UserError if a package that writes or runs ONNX files is missing."""
    try:
        import onnx_ir  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f'export: {error.name} is not installed; pip install "mivolo-lite[export]"') from None
