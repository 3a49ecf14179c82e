"""Normalisation of uint8 pixels: the formula, and what it reads and writes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mivolo_lite.images.normalise import Normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 16, 16, 3).movedim(-1, 1)


class Operators(TorchDispatchMode):
    """The names of the operators that run."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names = [*getattr(self, "names", []), operator._opname]
        return operator(*args, **(kwargs or {}))


def expected(pixels):
    mean, std = (torch.tensor(value, dtype=torch.float64).view(1, 3, 1, 1) for value in (MEAN, STD))
    return (pixels.double() / 255 - mean) / std


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_formula_in_the_format_of_the_images(memory_format):
    pixels = PIXELS.contiguous(memory_format=memory_format)
    found = Normalise(MEAN, STD)(pixels)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(found, expected(pixels).float(), rtol=0, atol=5e-7)


def test_under_autocast_it_is_rounded_once_and_not_as_an_operation_of_its_own():
    layer = Normalise(MEAN, STD)
    exact = layer(PIXELS)
    with torch.autocast("cpu", torch.bfloat16), Operators() as operators:
        found = layer(PIXELS)
    assert torch.equal(found, exact.bfloat16())
    assert operators.names == ["empty_like", "addcmul"]
    assert Normalise(MEAN, STD).bfloat16()(PIXELS).dtype == torch.bfloat16
