"""Every model and every method, exported: a graph a model, with the answers of several methods to the same features.

A method's part of a graph begins at the features, whose shape alone depends on the model. So one model has all methods,
each other one a method that answers by a number and one that answers by a distribution.
"""

from pathlib import Path

import pytest
from torch import nn

from mivolo_lite.estimator import Estimator
from mivolo_lite.inference.graph import Graph, trace
from mivolo_lite.inference.onnx_file import open_onnx, write_onnx
from mivolo_lite.inference.parity import require_parity
from mivolo_lite.methods import METHODS
from mivolo_lite.models import MODELS
from mivolo_lite.models.mivolo import MIVOLO
from tests.inference.exports import SMALL, small_estimator

onnx = pytest.importorskip("onnx")


class Once(nn.Module):
    """A module that is computed at the first call of a forward pass. It is no submodule of this one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._call, self.inputs, self.output = module.__call__, getattr(module, "inputs", None), []

    def forward(self, *inputs):
        if not self.output:
            self.output.append(self._call(*inputs))
        return self.output[0]


class EveryMethod(nn.Module):
    """The graphs of estimators that share their model and subnets, as one that computes these once.

    Its export takes little more time than that of one estimator.
    """

    def __init__(self, estimators: dict[str, Estimator]) -> None:
        super().__init__()
        self.graphs = nn.ModuleDict()
        for method, estimator in estimators.items():
            graph = self.graphs[method] = Graph(estimator)
            if len(self.graphs) == 1:
                self.model, self.subnets = graph.estimator.model, graph.estimator.subnets
                model, subnets = (
                    Once(self.model),
                    nn.ModuleDict({name: Once(net) for name, net in self.subnets.items()}),
                )
            graph.estimator.model, graph.estimator.subnets = model, subnets
        self.once = [model, *subnets.values()]
        self.estimator, self.example, self.input_names = graph.estimator, graph.example, graph.input_names
        self.output_names = [f"{method} {name}" for method in self.graphs for name in self.graphs[method].output_names]

    def forward(self, *inputs):
        answers = tuple(answer for graph in self.graphs.values() for answer in graph(*inputs))
        for module in self.once:
            module.output.clear()
        return answers


def run_by_method(whole: EveryMethod, path: Path):
    """What runs one method's part of the file, by its name."""
    run = open_onnx(path)

    def run_of(method):
        places = [place for place, name in enumerate(whole.output_names) if name.split()[0] == method]
        return lambda inputs: [run(inputs)[place] for place in places]

    return {method: run_of(method) for method in whole.graphs}


def estimators_of(model, methods, monkeypatch):
    """An estimator a method, which share the model and its subnets."""
    estimators = {}
    for method in methods:
        estimator = estimators[method] = small_estimator(model, method, monkeypatch, tasks=[])
        first = estimators[methods[0]]
        estimator.model, estimator.subnets = first.model, first.subnets
    return estimators


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_it_answers_as_its_estimator_by_operators_that_runtimes_have(model, tmp_path, monkeypatch):
    methods = list(METHODS) if model == "single" else ["regression", "classification"]
    estimators, path = estimators_of(model, methods, monkeypatch), tmp_path / "model.onnx"
    whole = EveryMethod(estimators)
    write_onnx(trace(whole), whole, {}, path)
    for method, run in run_by_method(whole, path).items():
        cases = require_parity(estimators[method], whole.graphs[method], run, "fp32")
        assert len(cases) == (10 if len(estimators[method].inputs) > 1 else 3)
    graph = onnx.load(path).graph
    assert {entry.type.tensor_type.shape.dim[0].dim_param for entry in graph.input} == {"batch"}
    assert {entry.type.tensor_type.elem_type for entry in graph.input} <= {
        onnx.TensorProto.UINT8,
        onnx.TensorProto.BOOL,
    }
    assert not {node.op_type for node in graph.node} & {"Col2Im", "Loop", "If", "NonZero"}
    assert str(tmp_path).encode() not in path.read_bytes() and b"mivolo_lite/models" not in path.read_bytes()


def test_every_model_is_exported_here():
    models = {name.partition(" ")[0] for name in SMALL}
    assert models == (set(MODELS) - set(MIVOLO)) | {"mivolo_tiny"}
