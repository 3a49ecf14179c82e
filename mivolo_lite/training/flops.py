"""Floating-point operations of a training step, and the peak of a GPU: their ratio is the model FLOPs utilisation
(MFU; Chowdhery et al., PaLM, 2022, appendix B)."""

import re
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch

_PEAKS: dict[str, dict[str, float]] = {
    r"V100[ -]SXM.*": {"fp16": 125, "no": 15.7},
    r"V100[ -]PCIE.*": {"fp16": 112, "no": 14},
    r"T4": {"fp16": 65, "no": 8.1},
    r"A10": {"bf16": 125, "fp16": 125, "no": 62.5},
    r"A30": {"bf16": 165, "fp16": 165, "no": 82},
    r"A40": {"bf16": 149.7, "fp16": 149.7, "no": 74.8},
    r"RTX A6000": {"bf16": 154.8, "fp16": 154.8, "no": 77.4},
    r"A100.*": {"bf16": 312, "fp16": 312, "no": 156},
    r"L4": {"bf16": 121, "fp16": 121, "no": 60},
    r"L40S": {"bf16": 362, "fp16": 362, "no": 183},
    r"RTX 6000 Ada.*": {"bf16": 364.2, "fp16": 364.2, "no": 182.1},
    r"GeForce RTX 3090": {"bf16": 71, "fp16": 71, "no": 35.6},
    r"GeForce RTX 4090": {"bf16": 165.2, "fp16": 165.2, "no": 82.6},
    r"H100 PCIe": {"bf16": 756, "fp16": 756, "no": 378},
    r"H100 NVL": {"bf16": 835, "fp16": 835, "no": 417},
    r"H100 80GB HBM3|H200|GH200 .*": {"bf16": 989, "fp16": 989, "no": 494},
    r"B200": {"bf16": 2250, "fp16": 2250, "no": 1125},
}
"""Dense TFLOP/s by ``train.precision``, with float32 accumulation, from NVIDIA's data sheets; ``no`` is TF32 if the GPU
has it, since training uses it."""

_BATCH = 4
"""Batch size for counting."""


def peak_flops(name: str, precision: str) -> float | None:
    """Peak floating-point operations per second of a GPU; None if it is not in the table.

    Args:
        name: as from ``torch.cuda.get_device_name``.
        precision: ``bf16``, ``fp16`` or ``no``.
    """
    card = re.sub(r"^(NVIDIA|Tesla|NVIDIA Tesla) ", "", name)
    rates = next((rates for pattern, rates in _PEAKS.items() if re.fullmatch(pattern, card)), {})
    return rates[precision] * 1e12 if precision in rates else None


@dataclass(frozen=True)
class ModelFlops:
    """Operations of a training step, forward and backward: matrix products and convolutions, as torch counts them.

    Attributes:
        sample: per sample, independent of its images.
        image: per image of each input.
        peak: of the device, per second.
    """

    sample: float
    image: dict[str, float]
    peak: float

    def of(self, batch: Batch) -> float:
        """Operations of a batch."""
        images = {name: getattr(batch, name) for name in self.image}
        return len(batch) * self.sample + sum(self.image[name] * len(images[name].rows) for name in images)


def model_flops(estimator: Estimator, device: torch.device, precision: str) -> ModelFlops | None:
    """Operations of an estimator's training; None if the device's peak is unknown."""
    peak = peak_flops(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
    return None if peak is None else count_flops(estimator, peak)


def count_flops(estimator: Estimator, peak: float) -> ModelFlops:
    """Count an estimator's operations with fake tensors, without computing. Its mode and weights stay.

    They are linear in the samples and in the images of each input, so a few small batches suffice. Each has at least
    two images of an input, since models take other paths for fewer. MiVOLO adds a black image if one is missing, so the
    two batches that differ by one image both lack some.
    """
    inputs = estimator.inputs
    everything = _flops(estimator, dict.fromkeys(inputs, _BATCH)) / _BATCH
    if len(inputs) == 1:
        return ModelFlops(0.0, dict.fromkeys(inputs, everything), peak)
    most = dict.fromkeys(inputs, _BATCH - 1)
    with_most = _flops(estimator, most)
    image = {name: with_most - _flops(estimator, most | {name: _BATCH - 2}) for name in inputs}
    return ModelFlops(everything - sum(image.values()), image, peak)


def _flops(estimator: Estimator, images: dict[str, int]) -> float:
    """Operations of a step on a batch with this many images of each input."""
    tensors = dict(estimator.named_parameters()) | dict(estimator.named_buffers())
    side = estimator.card.image_size
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        fakes = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)
            for name, tensor in tensors.items()
        }
        batch = {
            name: Images(torch.empty(count, 3, side, side, dtype=torch.uint8), torch.arange(count))
            for name, count in images.items()
        }
        outputs = functional_call(estimator, fakes, kwargs={**batch, "batch": _BATCH})
        torch.stack([output.float().sum() for output in outputs.values()]).sum().backward()
    return float(counter.get_total_flops())
