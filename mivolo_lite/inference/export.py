"""Exports an estimator to one file for other programs: ONNX, torch.export, or a backbone's plain weights for timm."""

import json
from pathlib import Path

import torch

from mivolo_lite.card import Tta
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.files import new_path, written_aside
from mivolo_lite.inference.formats import GraphFormat, Precision
from mivolo_lite.inference.graph import Graph, describe, trace
from mivolo_lite.inference.onnx_file import open_onnx, require_onnx, write_onnx
from mivolo_lite.inference.parity import Run, require_parity

DESCRIPTION = "description.json"
"""The extra file of a torch.export program, with the metadata of ONNX files."""


def export(
    checkpoint: Path | str,
    out: Path | str,
    format: GraphFormat = "onnx",
    precision: Precision = "fp32",
    tta: Tta | None = None,
) -> list[str]:
    """Write one file from uint8 images to years, genders and tasks, after comparing its answers with the estimator's.

    Args:
        checkpoint: as for ``Estimator.load``.
        out: the file; must not exist.
        format: ``onnx``, or ``torch`` for a program of torch.export.
        precision: of the backbone; heads and answers are always float32.
        tta: test-time augmentation inside the graph, see ``Estimator``; None for the card's.

    Returns:
        A line for each comparison; see ``require_parity``.

    Raises:
        UserError: ``out`` exists or cannot be written, a package is missing, or the model cannot be exported exactly.
    """
    out = new_path(out)
    if format == "onnx":
        require_onnx()
    estimator = Estimator.load(checkpoint)
    estimator.tta = tta or estimator.tta
    if estimator.tta == "multiscale":
        raise UserError("export: a graph takes images of one size, so not --tta multiscale; give flip or none")
    graph = Graph(estimator, half=precision == "fp16")
    program, description = trace(graph), describe(graph, precision)
    with written_aside(out) as partial:
        if format == "onnx":
            write_onnx(program, graph, description, partial)
            run = open_onnx(partial)
        else:
            extra = {DESCRIPTION: json.dumps(description, indent=1)}
            with open(partial, "wb") as file:  # for a path that ends in .partial, torch warns
                torch.export.save(program, file, extra_files=extra)
            run = open_program(partial)
        return require_parity(estimator, graph, run, precision)


def open_program(path: Path) -> Run:
    """A file of torch.export, run by torch."""
    with open(path, "rb") as file:
        module = torch.export.load(file).module()
    return lambda inputs: module(*inputs)
