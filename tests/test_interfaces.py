"""Classes of the registries keep their interfaces, and a user's own that do not are named in one line."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from mivolo_lite.config import INTERFACES, REGISTRIES
from mivolo_lite.errors import UserError, in_one_line, where_raised
from mivolo_lite.estimator import Estimator
from mivolo_lite.interfaces import require_interface
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeEstimate, AgeMethod
from mivolo_lite.models import MODELS
from mivolo_lite.models.head import Head
from mivolo_lite.packing.sources import SOURCES
from mivolo_lite.packing.sources.file_names import FileNameSource
from mivolo_lite.packing.sources.source import Source


class Plain(AgeMethod):
    @dataclass(frozen=True)
    class Config:
        width: int = 1

    def forward(self, features):
        return features

    def loss(self, output, age):
        return output

    def estimate(self, output):
        return AgeEstimate(output)


@dataclass
class Required:
    weight: float


def wrong(**changes):
    return type("Wrong", (Plain,), changes)


def test_every_class_of_the_registries_keeps_its_interface():
    for kind, registry in REGISTRIES.items():
        for name, cls in registry.items():
            require_interface(kind, name, cls, INTERFACES[kind])
    for name, cls in SOURCES.items():
        require_interface("source", name, cls, Source)
    require_interface("method", "plain", Plain, AgeMethod)


@pytest.mark.parametrize(
    "cls, fault",
    [
        (nn.Linear, "Linear is no subclass of AgeMethod"),
        (print, "print is no subclass of AgeMethod"),
        (type("Wrong", (AgeMethod,), {"Config": Plain.Config}), "Wrong has no forward"),
        (wrong(Config=None), "no nested dataclass Config"),
        (wrong(Config=dict), "no nested dataclass Config"),
        (wrong(Config=Required), "without a default, Config.weight"),
        (wrong(loss=lambda self, output: output), r"a loss that does not take \(self, output, age\)"),
        (wrong(fit_prior=lambda self: None), r"a fit_prior that does not take \(self, age_counts\)"),
        (wrong(__init__=lambda self, config: None), r"__init__ that does not take \(self, make_head, span, config\)"),
    ],
)
def test_a_method_that_breaks_the_interface_is_one_line(cls, fault):
    with pytest.raises(UserError, match=f"^method mine: .*{fault}.*; docs/adding.md shows how$"):
        require_interface("method", "mine", cls, AgeMethod)


def test_a_source_says_what_it_lacks():
    with pytest.raises(UserError, match="source mine: Wrong has no form"):
        require_interface("source", "mine", type("Wrong", (FileNameSource,), {}), Source)
    with pytest.raises(UserError, match="source mine: Wrong has no items"):
        require_interface("source", "mine", type("Wrong", (Source,), {}), Source)


def test_a_model_says_what_it_looks_at_and_how_wide_its_features_are():
    class Wrong(MODELS["single"]):
        def __init__(self, inputs, width):
            nn.Module.__init__(self)
            self.inputs, self.num_features = inputs, width

    Wrong(("face", "body"), 8).require_attributes()
    for inputs in ("face", ("person",), (), None):
        with pytest.raises(UserError, match=r"Wrong.inputs is .*; give \(.face.,\)"):
            Wrong(inputs, 8).require_attributes()
    with pytest.raises(UserError, match="Wrong.num_features is None"):
        Wrong(("face",), None).require_attributes()


def test_features_of_another_width_are_named_by_the_head():
    head = Head(8, 2)
    assert head(torch.zeros(3, 8)).shape == (3, 2) and head(torch.zeros(0, 8)).shape == (0, 2)
    for shape in ((3, 7), (3, 8, 4, 4), ()):
        with pytest.raises(UserError, match="its num_features 8"):
            head(torch.zeros(shape))


@pytest.mark.parametrize("answer", [lambda ages: ages, lambda ages: None, lambda ages: AgeEstimate(ages[:, None])])
def test_an_estimate_that_is_none_is_one_line(answer):
    estimator = object.__new__(Estimator)
    nn.Module.__init__(estimator)
    estimator.card = type("Card", (), {"gender": False})()
    estimator.method = METHODS["regression"].__new__(METHODS["regression"])
    nn.Module.__init__(estimator.method)
    object.__setattr__(estimator.method, "estimate", answer)
    with pytest.raises(UserError, match="Regression.estimate gives no AgeEstimate of one age a sample"):
        estimator.estimate({"age": torch.zeros(3)})


def test_a_wrong_import_and_wrong_syntax_are_one_line_with_their_place(tmp_path):
    for code, message in (
        ("import mivolo_lite.methods.interfaces", "ModuleNotFoundError: No module named 'mivolo_lite.methods"),
        ("def estimate(self)\n", "line 1: expected ':'"),
    ):
        with pytest.raises((ImportError, SyntaxError)) as raised:
            exec(compile(code, tmp_path / "plain.py", "exec"))
        explained = in_one_line(raised.value)
        assert message in str(explained) and "\n" not in str(explained) and explained.exit_code == 2


def test_where_raised_names_the_line_of_the_package():
    with pytest.raises(UserError) as raised:
        require_interface("method", "mine", dict, AgeMethod)
    assert where_raised(raised.value).startswith("mivolo_lite/interfaces.py, line ")
