"""Operations of a step as they are counted without computing, against those of a real step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mivolo_lite.card import Card
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.training.flops import count_flops, model_flops, peak_flops

SIDE = 48
MODELS = {
    "single": {"name": "single", "backbone": "test_resnet"},
    "dual": {"name": "dual", "face": "test_resnet", "body": "test_vit"},
}


@pytest.mark.parametrize("name", ["single", pytest.param("dual", marks=pytest.mark.slow)])
def test_what_is_counted_is_what_a_step_takes(name):
    side = 160 if name == "dual" else SIDE
    estimator = Estimator(Card(MODELS[name], {"name": "dldl"}, {"min_age": 0, "max_age": 100}, side)).train()
    before = {name: tensor.clone() for name, tensor in estimator.state_dict().items()}
    flops = count_flops(estimator, peak=1.0)
    assert all(before[name].equal(tensor) for name, tensor in estimator.state_dict().items())
    counts = dict(zip(("face", "body"), (7, 5), strict=True))
    pixels = torch.zeros(8, 3, side, side, dtype=torch.uint8)
    images = {name: Images(pixels[: counts[name]], torch.arange(counts[name])) for name in estimator.inputs}
    with FlopCounterMode(display=False) as counter:
        outputs = estimator(**images, batch=8)
        torch.stack([output.float().sum() for output in outputs.values()]).sum().backward()
    counted = 8 * flops.sample + sum(flops.image[name] * counts[name] for name in estimator.inputs)
    assert counted == counter.get_total_flops() > 1e6


@pytest.mark.parametrize(
    "name, precision, teraflops",
    [
        ("NVIDIA H200", "bf16", 989),
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "no", 378),
        ("NVIDIA A100-SXM4-80GB", "no", 156),
        ("NVIDIA A100-PCIE-40GB", "fp16", 312),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("Tesla T4", "fp16", 65),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA GeForce RTX 4090 D", "bf16", None),
        ("AMD Instinct MI300X", "bf16", None),
    ],
)
def test_only_the_peak_of_known_cards_is_claimed(name, precision, teraflops):
    assert peak_flops(name, precision) == (None if teraflops is None else pytest.approx(teraflops * 1e12))


def test_a_cpu_has_no_peak_and_nothing_is_counted_on_it():
    assert model_flops(None, torch.device("cpu"), "no") is None
