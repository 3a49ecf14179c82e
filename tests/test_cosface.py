"""CosFace against its formula, written out one number after another."""

import math

import numpy as np
import pytest
import torch

from mivolo_lite.cosface import Centres, cosface

BATCH, WIDTH, PEOPLE = 4, 6, 5


def by_hand(embedding, centres, person, margin, scale):
    """(B,) losses in plain Python."""
    losses = []
    for vector, true in zip(embedding, person, strict=True):
        cosines = [
            sum(a * b for a, b in zip(vector, centre, strict=True)) / math.hypot(*vector) / math.hypot(*centre)
            for centre in centres
        ]
        logits = [scale * (cosine - margin * (place == true)) for place, cosine in enumerate(cosines)]
        top = max(logits)
        losses.append(math.log(sum(math.exp(logit - top) for logit in logits)) + top - logits[true])
    return np.array(losses)


@pytest.fixture
def case():
    torch.manual_seed(0)
    centres = Centres(PEOPLE, WIDTH)
    embedding = 3 * torch.randn(BATCH, WIDTH)
    return centres, embedding.requires_grad_(), torch.tensor([2, 0, 4, 2])


@pytest.mark.parametrize("margin, scale", [(0.4, 64.0), (0.0, 64.0), (0.35, 8.0)])
def test_the_value(case, margin, scale):
    centres, embedding, person = case
    found = cosface(centres(embedding), person, margin, scale)
    expected = by_hand(embedding.tolist(), centres.weight.tolist(), person.tolist(), margin, scale)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5, atol=1e-4)


def test_the_gradient(case):
    """By differences of the formula, in double precision."""
    centres, embedding, person = case
    cosface(centres(embedding), person, 0.4, 8.0).sum().backward()
    start = embedding.detach().double().numpy(), centres.weight.detach().double().numpy()
    for place, found in enumerate((embedding.grad, centres.weight.grad)):
        for row, column in np.ndindex(*found.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [array.copy() for array in start]
                moved[place][row, column] += step
                ends.append(by_hand(*(array.tolist() for array in moved), person.tolist(), 0.4, 8.0).sum())
            assert found[row, column].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-4)


def test_without_a_margin_it_is_the_softmax_of_scaled_cosines(case):
    centres, embedding, person = case
    cosine = torch.nn.functional.cosine_similarity(embedding[:, None], centres.weight[None], dim=-1)
    expected = torch.nn.functional.cross_entropy(16 * cosine, person, reduction="none")
    torch.testing.assert_close(cosface(centres(embedding), person, 0.0, 16.0), expected)


def test_a_margin_makes_it_harder_and_lengths_do_not_matter(case):
    centres, embedding, person = case
    losses = [cosface(centres(embedding), person, margin, 64.0) for margin in (0.0, 0.2, 0.4)]
    assert (losses[0] < losses[1]).all() and (losses[1] < losses[2]).all()
    torch.testing.assert_close(centres(7 * embedding), centres(embedding))


def test_cosines_are_exact_under_autocast(case):
    centres, embedding, _ = case
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = centres(embedding)
    assert found.dtype == torch.float32 and torch.equal(found, centres(embedding))
