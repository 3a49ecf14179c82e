"""Activation checkpointing: the same gradients and batch statistics, fewer activations kept."""

import copy

import pytest
import torch
from torch import nn

from mivolo_lite.errors import UserError
from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS
from mivolo_lite.models.missing import uncounted_batches
from tests.models.test_every_model import BUILDERS, NONE, asked
from tests.models.tiny import BATCH, SIDE, images, tiny_mivolo


def built(label):
    torch.manual_seed(0)
    name, options = BUILDERS[label]
    return tiny_mivolo(**options) if name == "mivolo" else MODELS[name](MODELS[name].Config(**options), SIDE)


def learnt(model, given):
    """The gradients, the state after a training pass, and the bytes that it kept for the backward pass."""
    model, kept = copy.deepcopy(model).train(), []
    torch.manual_seed(1)  # of dropout, which the second forward pass must repeat
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        features = model(*given, BATCH)
    with uncounted_batches(model):
        features.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return gradients, model.state_dict(), sum(kept)


@pytest.mark.slow
@pytest.mark.parametrize("label", BUILDERS)
def test_gradients_and_statistics_are_the_same_and_less_is_kept(label):
    model = built(label)
    given = asked(model, images(0), images(1))
    gradients, state, kept = learnt(model, given)
    model.set_grad_checkpointing()
    assert model.grad_checkpointing
    again, state_again, kept_again = learnt(model, given)
    torch.testing.assert_close(again, gradients)
    torch.testing.assert_close(state_again, state, rtol=0, atol=0)
    assert kept_again < 0.8 * kept


@pytest.mark.parametrize("label", [label for label in BUILDERS if "dual" in label])
def test_also_of_a_batch_without_any_image_of_an_input(label):
    model = built(label)
    gradients, state, _ = learnt(model, (Images.of(images(0)), NONE))
    model.set_grad_checkpointing()
    again, state_again, _ = learnt(model, (Images.of(images(0)), NONE))
    torch.testing.assert_close(again, gradients)
    torch.testing.assert_close(state_again, state, rtol=0, atol=0)
    assert all(module.grad_checkpointing for module in model.modules() if hasattr(module, "grad_checkpointing"))


def test_a_backbone_that_has_none_says_so():
    model = built("single, a transformer's body")

    def set_grad_checkpointing(enable):
        assert not enable, "gradient checkpointing not supported"

    model.backbone.set_grad_checkpointing = set_grad_checkpointing
    with pytest.raises(UserError, match="^train.grad_checkpointing: VisionTransformer: gradient checkpointing not"):
        model.set_grad_checkpointing()


def test_uncounted_batches_are_normalised_like_others():
    norm, batch = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    before = copy.deepcopy(norm.state_dict())
    with uncounted_batches(norm):
        found = norm(batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    assert torch.equal(found, norm(batch)) and norm.momentum == 0.1 and norm.num_batches_tracked == 1
