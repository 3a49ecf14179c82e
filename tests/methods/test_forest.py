import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.card import Card
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.methods.forest import Forest, cluster_ages, normal_mass, refit_leaves
from mivolo_lite.methods.interface import AgeSpan
from tests.training.launching import run_ranks

AGE = torch.tensor([20.0, 30, 40, 50])
ROUTING = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])


def forest(features=8, **options):
    torch.manual_seed(0)
    return Forest(
        lambda outputs, bias=True: nn.Linear(features, outputs, bias), AgeSpan(0, 100), Forest.Config(**options)
    )


def stump(loss):
    """The pinned example: one tree, one split, two leaves."""
    method = forest(trees=1, depth=2, outputs=1, loss=loss, variance_floor=1e-6)
    method.leaf_mean.copy_(torch.tensor([[25.0, 45]]))
    method.leaf_variance.copy_(torch.tensor([[100.0, 100]]))
    return method, ROUTING[:, :1].logit()


def random_problem(samples=200, trees=3, leaves=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_routing = (2 * torch.randn(samples, trees, leaves, generator=generator)).log_softmax(-1)
    age = 80 * torch.rand(samples, generator=generator)
    mean = 80 * torch.rand(trees, leaves, generator=generator)
    return log_routing, age, torch.ones(samples), mean, torch.full((trees, leaves), 60.0)


def normal_density(x, mean, deviation):
    return np.exp(-(np.square((x - mean) / deviation)) / 2) / (deviation * np.sqrt(2 * np.pi))


def log_likelihood(log_routing, age, weight, mean, variance):
    """Plain float64: sum over samples and trees of the log of the mixture density."""
    density = normal_density(
        age.double().numpy()[:, None, None], mean.double().numpy(), variance.double().sqrt().numpy()
    )
    mixture = (log_routing.double().exp().numpy() * density).sum(-1)
    return (np.log(mixture) * weight.numpy()[:, None]).sum()


def plain_em(routing, age, mean, variance, floor):
    """One update of one tree, transcribed from the equations."""
    density = normal_density(age[:, None], mean, np.sqrt(variance))
    zeta = routing * density
    zeta /= zeta.sum(1, keepdims=True)
    new_mean = (zeta * age[:, None]).sum(0) / zeta.sum(0)
    new_variance = (zeta * (age[:, None] - new_mean) ** 2).sum(0) / zeta.sum(0)
    return new_mean, np.maximum(new_variance, floor)


def test_pinned_example():
    method, output = stump("l2")
    torch.testing.assert_close(method.log_routing(output).exp()[:, 0], ROUTING)
    torch.testing.assert_close(method.estimate(output).mean, torch.tensor([29.0, 33, 39, 43]))
    loss = method.loss(output, AgeRange.exact(AGE)).mean() * 100**2
    torch.testing.assert_close(loss, torch.tensor(17.5))
    method, output = stump("nll")
    assert -method.loss(output, AgeRange.exact(AGE)).sum().item() == pytest.approx(-14.198471, abs=1e-5)


@pytest.mark.parametrize(
    ("updates", "mean", "variance", "likelihood"),
    [
        (1, (25.650528, 43.738531), (40.380072, 46.027865), -13.468287),
        (2, (25.074385, 44.414002), (29.133210, 33.862169), -13.316546),
        (3, (24.995249, 44.722950), (26.349050, 29.060821), -13.290889),
    ],
)
def test_pinned_refit(updates, mean, variance, likelihood):
    log_routing, start = ROUTING.log()[:, None], (torch.tensor([[25.0, 45]]), torch.tensor([[100.0, 100]]))
    new_mean, new_variance = refit_leaves(log_routing, AGE, torch.ones(4), *start, updates, 1e-7)
    torch.testing.assert_close(new_mean, torch.tensor([mean]), rtol=1e-5, atol=0)
    torch.testing.assert_close(new_variance, torch.tensor([variance]), rtol=1e-5, atol=0)
    reached = log_likelihood(log_routing, AGE, torch.ones(4), new_mean, new_variance)
    assert reached == pytest.approx(likelihood, abs=1e-5)


def test_refit_against_plain_em():
    log_routing, age, weight, mean, variance = random_problem()
    new_mean, new_variance = refit_leaves(log_routing, age, weight, mean, variance, 5, 1.0)
    for tree in range(3):
        expected = mean[tree].double().numpy(), variance[tree].double().numpy()
        for _ in range(5):
            expected = plain_em(log_routing[:, tree].double().exp().numpy(), age.double().numpy(), *expected, 1.0)
        np.testing.assert_allclose(new_mean[tree].numpy(), expected[0], rtol=1e-4)
        np.testing.assert_allclose(new_variance[tree].numpy(), expected[1], rtol=1e-3)


def test_likelihood_never_falls():
    log_routing, age, weight, mean, variance = random_problem()
    weight[::3] = 0
    before = log_likelihood(log_routing, age, weight, mean, variance)
    gains = []
    for _ in range(20):
        mean, variance = refit_leaves(log_routing, age, weight, mean, variance, 1, 1.0)
        after = log_likelihood(log_routing, age, weight, mean, variance)
        gains.append(after - before)
        before = after
    assert min(gains) > -1e-3 and gains[0] > 10
    assert ((mean >= age.min()) & (mean <= age.max())).all()


def test_sure_routing_gives_sample_means_at_once():
    log_routing = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]).log().clamp(min=-1e4)[:, None]
    mean, variance = refit_leaves(
        log_routing, AGE, torch.ones(4), torch.tensor([[25.0, 45]]), torch.full((1, 2), 100.0), 1, 1.0
    )
    torch.testing.assert_close(mean, torch.tensor([[25.0, 45]]))
    torch.testing.assert_close(variance, torch.tensor([[25.0, 25]]))


def test_variance_stops_at_its_floor():
    log_routing = torch.tensor([[0.99, 0.01], [0.01, 0.99]]).log()[:, None]
    start = torch.tensor([[25.0, 45]]), torch.full((1, 2), 100.0)
    mean, variance = refit_leaves(log_routing, torch.tensor([20.0, 50]), torch.ones(2), *start, 20, 1.0)
    torch.testing.assert_close(variance, torch.ones(1, 2))
    torch.testing.assert_close(mean, torch.tensor([[20.0, 50]]))


def test_empty_leaf_keeps_its_gaussian():
    log_routing = torch.tensor([[0.0, -1e4]]).expand(4, 2)[:, None]
    mean, variance = refit_leaves(
        log_routing, AGE, torch.ones(4), torch.tensor([[25.0, 45]]), torch.full((1, 2), 100.0), 3, 1.0
    )
    assert mean[0].tolist() == [35, 45] and variance[0].tolist() == [125, 100]


def test_samples_of_no_weight_do_not_count():
    log_routing, age, weight, mean, variance = random_problem()
    weight[100:] = 0
    some = refit_leaves(log_routing[:100], age[:100], weight[:100], mean, variance, 3, 1.0)
    all_of_them = refit_leaves(log_routing, age, weight, mean, variance, 3, 1.0)
    torch.testing.assert_close(all_of_them, some)


def test_routing_sums_to_one_and_goes_left_by_the_sigmoid():
    method = forest(trees=4, depth=6)
    output = method(torch.randn(5, 8)) * 20
    routing = method.log_routing(output).exp()
    torch.testing.assert_close(routing.sum(-1), torch.ones(5, 4))
    split = output[:, method.units].sigmoid()
    for leaf in (0, 13, 31):
        expected, node = torch.ones(5, 4), 0
        for level in range(5):
            right = (leaf >> (4 - level)) & 1
            expected = expected * (1 - split[..., node] if right else split[..., node])
            node = 2 * node + 1 + right
        torch.testing.assert_close(routing[..., leaf], expected)


def test_every_tree_draws_its_own_units_without_replacement():
    units = forest().units
    assert units.shape == (5, 31) and all(len(set(tree.tolist())) == 31 for tree in units)
    assert len({tuple(tree.tolist()) for tree in units}) == 5
    assert torch.equal(units, forest().units) and not torch.equal(units, forest(seed=1).units)


def test_gradient_of_a_split():
    """The closed form of the paper's appendix: s_n A_right - (1 - s_n) A_left, with A = sum e pi_l mu_l below."""
    method = forest(trees=1, depth=3, outputs=3, loss="l2")
    method.leaf_mean.copy_(torch.tensor([[10.0, 30, 50, 70]]))
    output = torch.randn(1, 3).requires_grad_()
    routing = method.log_routing(output).exp()[0, 0].detach()
    split = output[0, method.units[0]].sigmoid().detach()
    error = (33 - (routing * method.leaf_mean[0]).sum()) / 100
    below = error * routing * method.leaf_mean[0] / 100
    expected = torch.zeros(1, 3)
    for node, left, right in [(0, [0, 1], [2, 3]), (1, [0], [1]), (2, [2], [3])]:
        unit = method.units[0, node]
        expected[0, unit] = split[node] * below[right].sum() - (1 - split[node]) * below[left].sum()
    (gradient,) = torch.autograd.grad(method.loss(output, AgeRange.exact(torch.tensor([33.0]))).sum(), output)
    torch.testing.assert_close(gradient, expected)


def test_units_shared_by_trees_add_their_gradients():
    method = forest(trees=2, depth=2, outputs=1)
    output = torch.zeros(1, 1, requires_grad=True)
    one = forest(trees=1, depth=2, outputs=1)
    age = AgeRange.exact(torch.tensor([20.0]))
    (both,) = torch.autograd.grad(method.loss(output, age).sum(), output)
    (single,) = torch.autograd.grad(one.loss(output, age).sum(), output)
    assert single.abs() > 0
    torch.testing.assert_close(both, single)


def test_range_costs_its_mass():
    method = forest(trees=3, depth=4, outputs=16)
    output = method(torch.randn(3, 8))
    lo, hi = torch.tensor([20.0, 0, 60]), torch.tensor([29.0, 12, 100])
    loss = method.loss(output, AgeRange(lo, hi, torch.ones(3, dtype=torch.bool)))
    deviation = method.leaf_variance.double().sqrt()
    start = torch.where(lo == 0, -torch.inf, lo - 0.5).double()[:, None, None]
    end = torch.where(hi == 100, torch.inf, hi + 0.5).double()[:, None, None]
    start, end = ((edge - method.leaf_mean.double()) / deviation for edge in (start, end))
    mass = ndtr(end.numpy()) - ndtr(start.numpy())
    tree_mass = (method.log_routing(output).detach().double().exp().numpy() * mass).sum(-1)
    np.testing.assert_allclose(loss.detach().numpy(), -np.log(tree_mass).mean(-1), rtol=1e-5)


def test_mass_is_exact_in_both_tails():
    lo, hi = torch.tensor([-9.5, 8.5]), torch.tensor([-8.5, 9.5])
    mass = normal_mass(lo, hi, torch.zeros(2), torch.ones(2))
    expected = ndtr(-8.5) - ndtr(-9.5)
    np.testing.assert_allclose(mass.numpy(), [expected, expected], rtol=1e-4)


def test_l2_range_costs_the_distance_to_its_nearer_edge():
    method, output = stump("l2")
    age = AgeRange(torch.tensor([31.0, 31, 31, 31]), torch.tensor([40.0, 40, 40, 40]), torch.ones(4).bool())
    expected = torch.tensor([2.0, 0, 0, 3]).square() / 2 / 100**2
    torch.testing.assert_close(method.loss(output, age), expected)


def test_probability_is_the_mixture_in_each_year():
    method = forest(trees=2, depth=3, outputs=8)
    output = method(torch.randn(2, 8))
    probability = method.estimate(output).probability
    torch.testing.assert_close(probability.sum(-1), torch.ones(2))
    routing, deviation = method.log_routing(output).detach().exp().numpy(), method.leaf_variance.sqrt()
    start, end = (((edge - method.leaf_mean) / deviation).double().numpy() for edge in (39.5, 40.5))
    at_40 = ndtr(end) - ndtr(start)
    np.testing.assert_allclose(probability[:, 40].detach().numpy(), (routing * at_40).sum(-1).mean(-1), rtol=1e-4)


@pytest.mark.parametrize("init", ["kmeans", "quantile"])
def test_leaves_start_where_the_training_ages_are(init):
    counts = torch.zeros(101)
    counts[20:30], counts[70] = 10, 100
    method = forest(depth=3, init=init)
    method.fit_prior(counts)
    mean = method.leaf_mean[0]
    assert torch.equal(method.leaf_mean, mean.expand(5, 4)) and (mean.diff() >= 0).all()
    assert mean[0] >= 20 and mean[0] < 30 and mean[-1] == 70
    assert (method.leaf_variance >= 1).all() and method.leaf_variance[0, -1] == 1


def test_kmeans_beats_its_start_and_is_a_fixed_point():
    counts = torch.rand(101, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 101)
    ages = torch.arange(101.0)

    def scatter(mean):
        return (counts * (ages[:, None] - mean).square().min(-1).values).sum()

    start, _ = cluster_ages(counts, ages, 6, "quantile")
    mean, variance = cluster_ages(counts, ages, 6, "kmeans")
    assert scatter(mean) < scatter(start)
    nearest = (ages[:, None] - mean).abs().argmin(-1)
    for cluster in range(6):
        members, weight = ages[nearest == cluster].numpy(), counts[nearest == cluster].numpy()
        center = np.average(members, weights=weight)
        assert mean[cluster].item() == pytest.approx(center, rel=1e-4)
        assert variance[cluster].item() == pytest.approx(np.average((members - center) ** 2, weights=weight), rel=1e-3)


def test_only_exactly_known_ages_refit_the_leaves():
    a, b = forest(refit_every=1, refit_samples=8), forest(refit_every=1, refit_samples=8)
    output = a(torch.randn(6, 8)).detach()
    known = torch.tensor([True, True, True, True, False, True])
    lo, hi = torch.tensor([20.0, 30, 40, 50, 77, 60]), torch.tensor([20.0, 30, 40, 50, 77, 69])
    a.refit(output, AgeRange(lo, hi, known), torch.arange(6))
    b.refit(output[:4], AgeRange.exact(lo[:4]), torch.arange(4))
    assert a.samples == b.samples == 4  # the others take no room in the ring
    torch.testing.assert_close(a.leaf_mean, b.leaf_mean)
    torch.testing.assert_close(a.leaf_variance, b.leaf_variance)
    assert not torch.equal(a.leaf_mean, forest().leaf_mean)


def test_leaves_are_refitted_every_so_many_steps_on_the_latest_samples():
    method = forest(refit_every=3, refit_samples=10)
    start = method.leaf_mean.clone()
    outputs, ages = torch.randn(3, 4, 128), torch.arange(12.0).view(3, 4) * 5
    for step in range(3):
        assert torch.equal(method.leaf_mean, start)
        method.refit(outputs[step], AgeRange.exact(ages[step]), torch.arange(4))
    latest, labels = outputs.flatten(0, 1)[-10:], ages.flatten()[-10:]
    expected, _ = refit_leaves(
        method.log_routing(latest), labels, torch.ones(10), start, forest().leaf_variance, 20, 1.0
    )
    assert not torch.equal(method.leaf_mean, start)
    torch.testing.assert_close(method.leaf_mean, expected, rtol=1e-4, atol=1e-3)


def test_a_batch_larger_than_the_ring_leaves_its_end():
    method = forest(refit_samples=5)
    method.refit(torch.randn(12, 128), AgeRange.exact(torch.arange(12.0)), torch.arange(12))
    assert sorted(method.ring_age.tolist()) == [7, 8, 9, 10, 11]


def train(method, steps, start=0):
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for step in range(start, steps):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        age = AgeRange.exact((40 + 15 * x[:, 0]).clamp(0, 100))
        optimizer.zero_grad()
        output = method(x)
        method.loss(output, age).mean().backward()
        optimizer.step()
        method.refit(output.detach(), age, torch.arange(16))
    return method


def test_resumed_training_is_the_same_training(tmp_path):
    options = dict(refit_every=5, refit_samples=50)
    whole = train(forest(**options), 14)
    torch.save(train(forest(**options), 8).state_dict(), tmp_path / "state.pt")
    resumed = forest(seed=9, **options)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(resumed, 14, start=8)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_new_run_from_a_forests_weights_fills_its_own_ring(tmp_path):
    card = {"model": {"name": "single", "backbone": "test_resnet"}, "span": {"min_age": 0, "max_age": 100}}
    first, second = (
        Estimator(Card(method={"name": "forest", "refit_samples": size}, image_size=32, **card)) for size in (50, 20)
    )
    first.method.refit(torch.randn(4, 128), AgeRange.exact(AGE), torch.arange(4))
    first.method.leaf_mean.add_(1)
    first.save(tmp_path / "first")
    second.load_weights(tmp_path / "first")
    method = second.method
    torch.testing.assert_close(method.leaf_mean, first.method.leaf_mean)
    assert len(method.ring_age) == 20 and not method.ring_weight.any() and method.samples == method.steps == 0
    method.refit(torch.randn(4, 128), AgeRange.exact(AGE), torch.arange(4))
    assert method.ring_weight.sum() == 4 and method.steps == 1


def test_leaves_are_no_parameters_and_get_no_gradient():
    method = forest()
    method.loss(method(torch.randn(4, 8)), AgeRange.exact(AGE)).sum().backward()
    assert {name for name, _ in method.named_parameters()} == {"head.weight", "head.bias"}
    assert not method.leaf_mean.requires_grad and method.leaf_mean.grad is None


@pytest.mark.parametrize("options", [dict(depth=9, outputs=100), dict(refit_samples=10**6, outputs=1000)])
def test_impossible_forests_are_refused(options):
    with pytest.raises(UserError, match="=") as error:
        forest(**options)
    assert "\n" not in str(error.value)


def distributed_worker(rank, store, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    method = forest(refit_every=3, refit_samples=40)
    model = DistributedDataParallel(method)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    x, age = distributed_data()
    for step in range(7):
        mine = slice(8 * rank, 8 * rank + 8)
        optimizer.zero_grad()
        output = model(x[step, mine])
        method.loss(output, AgeRange.exact(age[step, mine])).mean().backward()
        optimizer.step()
        method.refit(output.detach(), AgeRange.exact(age[step, mine]), torch.arange(16)[mine])
    torch.save(method.state_dict(), results / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def distributed_data():
    x = torch.randn(7, 16, 8, generator=torch.Generator().manual_seed(0))
    return x, (40 + 15 * x[..., 0]).clamp(0, 100)


@pytest.mark.slow
def test_two_ranks_are_one_process_with_all_samples(tmp_path):
    run_ranks(distributed_worker, [(rank, tmp_path / "store", tmp_path) for rank in range(2)], timeout=240)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    method = forest(refit_every=3, refit_samples=40)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    for x, age in zip(*distributed_data(), strict=True):
        optimizer.zero_grad()
        output = method(x)
        method.loss(output, AgeRange.exact(age)).mean().backward()
        optimizer.step()
        method.refit(output.detach(), AgeRange.exact(age), torch.arange(16))
    for name, value in method.state_dict().items():
        assert torch.equal(states[0][name], states[1][name]), name
        torch.testing.assert_close(states[0][name], value, rtol=1e-3, atol=1e-3)
    assert not torch.equal(method.leaf_mean, forest().leaf_mean)
