import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.errors import UserError
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.methods.lds import kernel_window, smoothed_weights
from mivolo_lite.methods.regression import Regression

MIVOLO_SPAN = AgeSpan(1, 116)


def regression(span=MIVOLO_SPAN, **options):
    return Regression(lambda outputs, bias=True: nn.Linear(4, outputs, bias), span, Regression.Config(**options))


@pytest.mark.parametrize(("output", "years"), [(-0.5, 1), (0.5, 116), (-0.2478260870, 30), (0, 58.5)])
def test_mivolo_normalisation(output, years):
    method = regression()
    assert method.center == 58.5
    mean = method.estimate(torch.tensor([[output]])).mean
    torch.testing.assert_close(mean, torch.tensor([float(years)]), rtol=1e-6, atol=1e-5)


def test_losses_are_those_of_the_normalised_age():
    output, age = torch.tensor([[0.3], [-0.1], [0.0]]), AgeRange.exact(torch.tensor([30.0, 50, 60]))
    error = output[:, 0] - (age.lo - 58.5) / 115
    for name, expected in {
        "l1": error.abs(),
        "l2": error.square(),
        "huber": nn.SmoothL1Loss(beta=5 / 115, reduction="none")(error, torch.zeros(3)),
    }.items():
        torch.testing.assert_close(regression(loss=name, huber_beta=5.0).loss(output, age), expected)


@pytest.mark.parametrize(("progress", "value"), [(0, 4.5), (0.5, 2.446735), (1, 0.393469), (1.7, 0.393469)])
@pytest.mark.parametrize("normalise", [True, False])
def test_annealed(progress, value, normalise):
    method = regression(loss="annealed", normalise=normalise)
    method.progress = progress
    output = torch.zeros(2, 1)
    loss = method.loss(output, AgeRange.exact(method.center + torch.tensor([3.0, -3.0])))
    torch.testing.assert_close(loss, torch.full((2,), value), rtol=0, atol=2e-6)
    assert (method.loss(output, AgeRange.exact(method.center.expand(2))) == 0).all()


def test_annealed_ignores_outliers_at_the_end():
    method = regression(loss="annealed", normalise=False)
    method.progress = 1.0
    output = torch.tensor([[60.0]], requires_grad=True)
    loss = method.loss(output, AgeRange.exact(torch.tensor([10.0])))
    loss.sum().backward()
    assert loss <= 1 and output.grad.abs() < 1e-6


def test_range_is_its_nearer_edge():
    method = regression(normalise=False)
    output = torch.tensor([[10.0], [25], [50]]) - method.center
    age = AgeRange(torch.full((3,), 20.0), torch.full((3,), 29.0), torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(method.loss(output, age), torch.tensor([10.0, 0, 21]))


def test_raw_years_start_at_the_mean_training_age():
    method = regression(normalise=False)
    counts = torch.zeros(116)
    counts[19], counts[39] = 3, 1
    method.fit_prior(counts)
    assert method.estimate(torch.zeros(1, 1)).mean == 25
    normalised = regression()
    normalised.fit_prior(counts)
    assert normalised.center == 58.5, "MiVOLO's checkpoints depend on the midrange"


def test_answer_is_not_negative():
    estimate = regression().estimate(torch.tensor([[-2.0]]))
    assert estimate.mean < 0 and estimate.age == 0


@pytest.mark.parametrize(("ks", "sigma"), [(5, 2.0), (9, 1.0), (9, 2.0), (1, 2.0), (3, 4.0), (15, 0.3)])
def test_gaussian_window_against_scipy(ks, sigma):
    delta = np.zeros(ks)
    delta[ks // 2] = 1
    expected = gaussian_filter1d(delta, sigma)
    np.testing.assert_allclose(kernel_window("gaussian", ks, sigma).numpy(), expected / expected.max(), atol=1e-6)


def test_other_windows():
    assert kernel_window("gaussian", 5, 2.0).tolist() == pytest.approx([0.858285, 0.945828, 1, 0.945828, 0.858285])
    np.testing.assert_allclose(kernel_window("triang", 7, 2.0).numpy(), 1 - np.abs(np.arange(-3, 4)) / 4, atol=1e-6)
    np.testing.assert_allclose(kernel_window("laplace", 5, 2.0).numpy(), np.exp(-np.abs(np.arange(-2, 3)) / 2), 1e-6)
    with pytest.raises(UserError, match="odd"):
        kernel_window("gaussian", 4, 2.0)


@pytest.mark.parametrize("reweight", ["sqrt_inv", "inverse"])
@pytest.mark.parametrize("kernel", ["gaussian", "triang", "laplace"])
def test_weights_against_the_published_recipe(reweight, kernel):
    counts = np.random.default_rng(0).integers(1, 3000, 101).astype(float)
    density = np.sqrt(counts) if reweight == "sqrt_inv" else np.clip(counts, 5, 1000)
    weight = 1 / np.convolve(density, kernel_window(kernel, 9, 1.0).numpy(), mode="same")
    weight *= counts.sum() / (weight * counts).sum()
    ours = smoothed_weights(torch.tensor(counts), kernel, 9, 1.0, reweight)
    np.testing.assert_allclose(ours.numpy(), weight, rtol=1e-5)


def test_weight_laws():
    counts = torch.full((101,), 50.0)
    weight = smoothed_weights(counts, "gaussian", 5, 2.0, "sqrt_inv")
    torch.testing.assert_close(weight[2:-2], weight[2].expand(97))
    counts[60:] = 0
    counts[59] = 2
    weight = smoothed_weights(counts, "gaussian", 5, 2.0, "sqrt_inv")
    assert weight.isfinite().all() and weight[59] > weight[30]
    torch.testing.assert_close((weight * counts).sum(), counts.sum())
    assert weight[80] <= weight[counts > 0].max()
    sharp = smoothed_weights(counts, "gaussian", 1, 2.0, "sqrt_inv")
    torch.testing.assert_close(sharp[59] / sharp[30], torch.tensor(5.0))


def test_weights_enter_the_loss_by_age():
    method = regression(AgeSpan(0, 100), lds=True)
    counts = torch.ones(101)
    counts[20:30] = 400
    method.fit_prior(counts)
    age = AgeRange(torch.tensor([25.0, 60, 55]), torch.tensor([25.0, 60, 65]), torch.ones(3, dtype=torch.bool))
    weighted = method.loss(torch.ones(3, 1), age)
    plain = regression(AgeSpan(0, 100)).loss(torch.ones(3, 1), age)
    torch.testing.assert_close(weighted, plain * method.age_weight[[25, 60, 60]])
    assert method.age_weight[60] > 10 * method.age_weight[25]


@pytest.mark.parametrize("normalise", [True, False])
def test_a_new_head_starts_at_the_mean_training_age(normalise):
    method = regression(normalise=normalise)
    counts = torch.zeros(len(MIVOLO_SPAN))
    counts[[9, 29]] = torch.tensor([1.0, 3.0])  # ages 10 and 30
    method.fit_prior(counts)
    for parameter in method.head.parameters():
        nn.init.zeros_(parameter)
    assert method.estimate(method(torch.ones(2, 4))).mean.tolist() == pytest.approx([25, 25], abs=1e-4)
