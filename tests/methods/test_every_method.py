"""Laws that every method obeys, whatever its mathematics."""

import pytest
import torch
from torch import nn

from mivolo_lite import option_values
from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.errors import UserError
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeSpan

SPAN = AgeSpan(0, 100)
FEATURES = 16
BATCH = 8
VARIANTS = {name: (name, {}) for name in METHODS} | {
    "regression_raw_l2": ("regression", {"loss": "l2", "normalise": False}),
    "regression_huber_lds": ("regression", {"loss": "huber", "lds": True}),
    "regression_annealed": ("regression", {"loss": "annealed"}),
    "sord_squared": ("sord", {"squared": True}),
    "sord_wide": ("sord", {"scale": 4.0}),
    "classification_smoothed": ("classification", {"label_smoothing": 0.1}),
    "coral_importance": ("coral", {"importance": True}),
    "forest_l2": ("forest", {"loss": "l2"}),
}


def build(variant, span=SPAN):
    """A method on plain features, with a seed of its own."""
    torch.manual_seed(0)
    name, options = VARIANTS[variant]
    method = METHODS[name](
        lambda outputs, bias=True: nn.Linear(FEATURES, outputs, bias), span, METHODS[name].Config(**options)
    )
    method.fit_prior(torch.arange(1.0, len(span) + 1))
    return method


def features(batch=BATCH, seed=1):
    return torch.randn(batch, FEATURES, generator=torch.Generator().manual_seed(seed))


def mixed_ages():
    """Exact ages at both ends and in the middle, ranges, unknown ages with awkward filler, ages outside the span."""
    lo = torch.tensor([0.0, 100, 31.4, 20, 0, 0, 7, 118])
    hi = torch.tensor([0.0, 100, 31.4, 29, 2, 0, 3, 118])
    known = torch.tensor([True, True, True, True, True, False, False, True])
    return AgeRange(lo, hi, known)


@pytest.fixture(params=VARIANTS)
def name(request):
    return request.param


def test_shapes_and_types(name):
    method = build(name)
    output = method(features())
    loss, estimate = method.loss(output, mixed_ages()), method.estimate(output)
    assert loss.shape == estimate.mean.shape == estimate.age.shape == (BATCH,)
    assert loss.dtype == estimate.mean.dtype == estimate.age.dtype == torch.float32
    assert loss.isfinite().all() and estimate.mean.isfinite().all()
    if estimate.probability is not None:
        assert estimate.probability.shape == (BATCH, len(SPAN)) and estimate.probability.dtype == torch.float32
        assert (estimate.probability >= 0).all()
        torch.testing.assert_close(estimate.probability.sum(-1), torch.ones(BATCH))
        assert ((estimate.mean >= SPAN.min_age) & (estimate.mean <= SPAN.max_age)).all()


# A forest's leaves are clusters of the training ages, which have tests of their own.
@pytest.mark.parametrize("name", [variant for variant in VARIANTS if not variant.startswith("forest")])
def test_a_new_head_starts_at_the_training_ages(name):
    method = build(name)
    counts = torch.arange(1.0, len(SPAN) + 1)
    for parameter in method.head.parameters():
        nn.init.zeros_(parameter)
    mean = (counts * SPAN.ages()).sum() / counts.sum()
    assert abs(method.estimate(method(features())).mean - mean).max() < (6 if name.startswith("coral") else 1)


def test_gradient_on_every_parameter(name):
    method = build(name)
    method.loss(method(features()), AgeRange.exact(torch.arange(BATCH) * 11.0)).mean().backward()
    for label, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, label


def test_samples_do_not_see_each_other(name):
    method, age = build(name), mixed_ages()
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(3))
    shuffled = AgeRange(age.lo[order], age.hi[order], age.known[order])
    whole = method.loss(method(features()), age)
    torch.testing.assert_close(method.loss(method(features()[order]), shuffled), whole[order])
    alone = method.loss(method(features()[:1]), AgeRange(age.lo[:1], age.hi[:1], age.known[:1]))
    torch.testing.assert_close(alone, whole[:1])


def test_range_that_says_nothing_costs_nothing(name):
    method = build(name)
    output = method(features() / 100).detach().requires_grad_()  # small: a regression may leave the span
    everything = AgeRange(torch.zeros(BATCH), torch.full((BATCH,), 100.0), torch.ones(BATCH, dtype=torch.bool))
    loss = method.loss(output, everything)
    torch.testing.assert_close(loss, torch.zeros(BATCH), atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), output)
    torch.testing.assert_close(gradient, torch.zeros_like(output), atol=1e-5, rtol=0)


def test_wider_range_costs_no_more(name):
    method = build(name)
    output = method(features())
    known = torch.ones(BATCH, dtype=torch.bool)
    widths = [
        method.loss(output, AgeRange(torch.full((BATCH,), lo), torch.full((BATCH,), hi), known))
        for lo, hi in [(38.0, 39.0), (38.0, 45.0), (20.0, 60.0), (1.0, 99.0)]
    ]
    for narrow, wide in zip(widths, widths[1:], strict=False):
        assert (wide <= narrow + 1e-6).all()
    assert (widths[-1] < widths[0]).any()


def test_ages_outside_the_span_are_its_ends(name):
    method = build(name, AgeSpan(20, 60))
    output = method(features(2))
    outside = method.loss(output, AgeRange.exact(torch.tensor([3.0, 99.0])))
    torch.testing.assert_close(outside, method.loss(output, AgeRange.exact(torch.tensor([20.0, 60.0]))))
    assert (method.loss(output, AgeRange.exact(torch.tensor([30.0, 30.0]))) - outside).abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_extreme_outputs(name, dtype):
    method = build(name)
    shape = method(features(4)).shape
    signs = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
    for pattern in (signs, torch.ones(shape), -torch.ones(shape), torch.linspace(-1, 1, shape[1]).expand(shape)):
        output = (1e4 * pattern).to(dtype).float().requires_grad_()
        age = AgeRange(torch.tensor([0.0, 100, 0, 90]), torch.tensor([0.0, 100, 9, 100]), torch.ones(4).bool())
        loss = method.loss(output.to(dtype), age)
        assert loss.dtype == torch.float32 and loss.isfinite().all()
        in_float = method.loss(output, age)
        torch.testing.assert_close(loss, in_float)
        assert torch.autograd.grad(in_float.sum(), output)[0].isfinite().all()
        estimate = method.estimate(output.to(dtype))
        assert estimate.mean.isfinite().all() and estimate.age.isfinite().all()
        if estimate.probability is not None:
            torch.testing.assert_close(estimate.probability.sum(-1), torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_and_estimate_are_float32_under_autocast(name, dtype):
    method = build(name)
    output = method(features()).to(dtype)
    plain, plain_estimate = method.loss(output, mixed_ages()), method.estimate(output)
    with torch.autocast("cpu", dtype=dtype):
        cast, cast_estimate = method.loss(output, mixed_ages()), method.estimate(output)
    assert torch.equal(plain, cast) and torch.equal(plain_estimate.mean, cast_estimate.mean)
    if plain_estimate.probability is not None:
        assert torch.equal(plain_estimate.probability, cast_estimate.probability)


def test_a_half_precision_model_keeps_its_ages_weights_and_leaves(name):
    method = build(name)
    before = {label: buffer.clone() for label, buffer in method.named_buffers()}
    nn.Sequential(method).bfloat16()
    assert all(parameter.dtype == torch.bfloat16 for parameter in method.parameters())
    for label, buffer in method.named_buffers():
        assert torch.equal(buffer, before[label]), label
    output = method(features().bfloat16())
    estimate = method.estimate(output)
    assert output.dtype == torch.bfloat16
    assert estimate.mean.dtype == estimate.age.dtype == method.loss(output, mixed_ages()).dtype == torch.float32


def test_state_dict_round_trip(name):
    method, other = build(name), build(name)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    method.fit_prior(torch.arange(len(SPAN), 0, -1.0).square())
    output = method(features())
    other.load_state_dict(method.state_dict())
    torch.testing.assert_close(other(features()), output, rtol=0, atol=0)
    assert torch.equal(other.loss(output, mixed_ages()), method.loss(output, mixed_ages()))
    assert torch.equal(other.estimate(output).age, method.estimate(output).age)


def test_learns(name):
    method = build(name)
    x, age = features(64), AgeRange.exact(features(64)[:, 0] * 12 + 40)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.3)

    def error():
        return (method.estimate(method(x)).mean - age.lo).abs().mean().item()

    before = error()
    for _ in range(40):
        optimizer.zero_grad()
        output = method(x)
        method.loss(output, age).mean().backward()
        optimizer.step()
        method.refit(output.detach(), age, torch.arange(len(output)))
    assert error() < 0.6 * before


@pytest.mark.parametrize("span", [AgeSpan(), AgeSpan(16, 77)])
@pytest.mark.parametrize("width", [64, 1024])
@pytest.mark.parametrize("even", [True, False])
def test_age_and_gender_pull_alike_at_the_start(name, span, width, even):
    """Published losses differ ten thousandfold; in their units none drowns the gender's, or drowns in it."""
    torch.manual_seed(0)
    kind, options = VARIANTS[name]
    config = METHODS[kind].Config(**options)
    method = METHODS[kind](lambda outputs, bias=True: nn.Linear(width, outputs, bias), span, config)
    ages = span.ages()
    spread = (span.max_age - span.min_age) / 6  # as in collections of faces
    shares = torch.ones(len(span)) if even else torch.exp(-((ages - ages.mean()) ** 2) / 2 / spread**2) + 0.01
    age = ages[torch.multinomial(shares, 256, replacement=True)]
    method.fit_prior(torch.bincount((age - span.min_age).long(), minlength=len(span)))
    features = torch.randn(256, width).relu().requires_grad_()
    gender_head, gender = nn.Linear(width, 2), torch.randint(0, 2, (256,))
    losses = {
        "age": method.loss(method(features), AgeRange.exact(age)).mean() / method.loss_unit,
        "gender": nn.functional.cross_entropy(gender_head(features), gender),
    }
    pull = {what: torch.autograd.grad(loss, features)[0].norm() for what, loss in losses.items()}
    assert 1 / 3 < pull["age"] / pull["gender"] < 3


@pytest.mark.parametrize(
    "method, option",
    [
        ("dldl", "sigma"),
        *(("regression", option) for option in ("huber_beta", "annealed_sigma", "lds_sigma")),
        *(("forest", option) for option in ("trees", "depth", "refit_every", "refit_samples", "variance_floor")),
    ],
)
def test_a_nought_that_means_nothing_is_one_line(method, option):
    with pytest.raises(UserError, match=rf"^method.{option}: 0 is not [^\n]+ from [^\n]+$"):
        option_values.build(METHODS, {"name": method, option: 0}, "method", METHODS[method])


@pytest.mark.parametrize(
    "method, option, value",
    [("regression", "lds_sigma", -1), ("regression", "lds_kernel", "box"), ("forest", "depth", 0),
     ("dldl", "sigma", "2"), ("sord", "scale", float("nan"))],
)  # fmt: skip
def test_options_made_in_python_are_checked_alike(method, option, value):
    config = METHODS[method].Config(**{option: value})
    with pytest.raises(UserError, match=rf"^method.{option}: [^\n]+ is not [^\n]+$"):
        METHODS[method](lambda outputs, bias=True: nn.Linear(FEATURES, outputs, bias), AgeSpan(), config)
