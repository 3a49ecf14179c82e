"""Any of timm's optimizers by its name: what is refused, and that a step after a resume is the step without."""

import copy
import warnings

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from timm.optim import list_optimizers
from torch import nn

from mivolo_lite.config import read_run_config
from mivolo_lite.distributed.fsdp2 import FullySharded
from mivolo_lite.distributed.optimizer_state import load_named_state, named_state
from mivolo_lite.distributed.zero import Zero
from mivolo_lite.errors import UserError
from mivolo_lite.training.optim import OptimConfig, build_optimizer
from mivolo_lite.training.train_state import TrainState
from tests.training.resuming import require_same_after_resume
from tests.training.test_distillation import estimator

NEED_GPUS = ("bnb", "fused")  # bitsandbytes and apex
REFUSED = ("kron", "adahessian")
HERE = [name for name in list_optimizers() if not name.startswith((*NEED_GPUS, *REFUSED))]
FILES = ["--config", "pkg:utkface", "--run", "x"]


def small_model():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    return module.to(memory_format=torch.channels_last)


def step(module, optimizer, number):
    images = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(number))
    for group in optimizer.param_groups:  # also of what is frozen now
        group["lr"] = 0.0 if number == 1 and not group["weight_decay"] else 1e-3 / (number + 1)
    optimizer.zero_grad()
    module(images).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", HERE)
def test_what_is_saved_and_loaded_steps_on_to_the_bit(name, tmp_path):
    module = small_model()
    optimizer = build_optimizer(module, OptimConfig(name=name))
    for number in range(3):
        step(module, optimizer, number)
    save_file(named_state(optimizer, dict(module.named_parameters())), tmp_path / "state.safetensors")
    resumed = copy.deepcopy(module)
    second = build_optimizer(resumed, OptimConfig(name=name))
    load_named_state(second, dict(resumed.named_parameters()), load_file(tmp_path / "state.safetensors"))
    for number in range(3, 6):
        step(module, optimizer, number)
        step(resumed, second, number)
    assert all(torch.equal(one, other) for one, other in zip(module.parameters(), resumed.parameters(), strict=True))
    states = [named_state(each, dict(m.named_parameters())) for each, m in ((optimizer, module), (second, resumed))]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", ["adan", "lamb"])
@pytest.mark.parametrize("before, now", [((), ("0.weight",)), (("0.weight",), ())])
def test_a_count_of_groups_is_loaded_into_others(name, before, now):
    """As where a run resumes with another train.freeze or optim.layer_decay."""
    module = small_model()
    optimizer = build_optimizer(module, OptimConfig(name=name), before)
    step(module, optimizer, 0)
    other = build_optimizer(module, OptimConfig(name=name), now)
    load_named_state(other, dict(module.named_parameters()), named_state(optimizer, dict(module.named_parameters())))
    assert len(other.param_groups) != len(optimizer.param_groups)
    assert [group["step"] for group in other.param_groups] == [1] * len(other.param_groups)


def test_what_was_saved_is_not_what_is_learnt_later():
    module = small_model()
    optimizer = build_optimizer(module, OptimConfig(name="momentum"))
    step(module, optimizer, 0)
    saved = named_state(optimizer, dict(module.named_parameters()))
    second = build_optimizer(module, OptimConfig(name="momentum"))
    load_named_state(second, dict(module.named_parameters()), saved)
    before = {name: tensor.clone() for name, tensor in saved.items()}
    step(module, second, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in saved.items())


def test_lists_of_tensors_are_kept_in_order():
    parameter, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    first, second = (torch.optim.SGD([each]) for each in (parameter, other))
    first.state[parameter] = {"Q": [torch.full((2, 2), float(item)) for item in range(12)], "is_set": True, "left": 0.5}
    load_named_state(second, {"weight": other}, named_state(first, {"weight": parameter}))
    assert [float(item[0, 0]) for item in second.state[other]["Q"]] == list(range(12))
    assert second.state[other]["is_set"] is True and second.state[other]["left"] == 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "adamv"}, "optim.name: timm .* has no optimizer 'adamv'; did you mean adam"),
        ({"name": "lookahead_adamw"}, "Lookahead's slow weights are in no checkpoint here; use adamw"),
        ({"name": "adahessian"}, "adahessian needs second derivatives"),
        ({"name": "kronw"}, "kronw has random numbers of its own"),
        ({"name": "sgd", "beta1": 0.8}, "optim.name sgd: beta1 and beta2 are AdamW's"),
        ({"options": {"betas": [0.8, 0.9]}, "beta1": 0.8}, "optim.options: betas are beta1 and beta2 as well"),
        ({"schedule": "multistep"}, "optim.decay_milestones is missing"),
    ],
)
def test_what_cannot_be_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        OptimConfig(**options)


@pytest.mark.parametrize("options", [{"momentun": 0.8}, {"momentum": -1.0}, {"momentum": "much"}])
def test_options_that_an_optimizer_does_not_take_are_one_line(options):
    with pytest.raises(UserError, match="optim.name sgd, with options"):
        build_optimizer(small_model(), OptimConfig(name="sgd", options=options))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("sgd", {"betas": [0.9, 0.95]}, "betas is none of its own; those are momentum, dampening, nesterov"),
        ("adamw", {"momentum": 0.5}, "momentum is none of its own; those are betas, eps"),
        ("lion", {"eps": 1e-3}, "eps is none of its own"),
        ("muon", {"layer_decay": 0.5}, "layer_decay is none of its own"),
        ("adamw", {"beta": [0.9, 0.95]}, "beta is none of its own; did you mean betas"),
        ("adamw", {"lr": 0.1}, "lr is none of its own"),
    ],
)
def test_options_that_the_factory_would_drop_are_one_line(name, options, message):
    with pytest.raises(UserError, match=f"optim.name {name}, with options .*: {message}"):
        build_optimizer(small_model(), OptimConfig(name=name, options=options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="its optimizers run there")
def test_an_optimizer_for_gpus_says_so():
    with pytest.raises(UserError, match="optim.name bnbadamw, .*CUDA"):
        build_optimizer(small_model(), OptimConfig(name="bnbadamw"))


def test_every_name_of_timms_is_refused_or_built():
    assert len(HERE) > 60
    for name in REFUSED:
        with pytest.raises(UserError):
            OptimConfig(name=name)


def test_options_come_from_the_command_line_and_go_with_another_name():
    words = ["--optim.name", "sgd", "--optim.options", "{momentum: 0.5}", "--optim.options.nesterov", "true"]
    config = read_run_config([*FILES, *words])
    assert config.optim.options == {"momentum": 0.5, "nesterov": True} and config.optim.epochs > 0
    group = build_optimizer(small_model(), config.optim).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.5, True)
    config = read_run_config([*FILES, *words, "--optim.lr", "0.5", "--optim.name", "lion"])
    assert config.optim.options == {} and config.optim.lr == 0.5
    with pytest.raises(UserError, match="command line: optim.name: timm .* has no optimizer 'sdg'; did you mean sgd"):
        read_run_config([*FILES, "--optim.name", "sdg"])
    with pytest.raises(UserError, match="optim.options: 'x' is not"):
        read_run_config([*FILES, "--optim.options", "x"])


@pytest.mark.parametrize("options", [{"name": "sgd"}, {"options": {"amsgrad": True}}])
@pytest.mark.parametrize("engine, name", [(FullySharded, "FSDP2"), (Zero, "ZeRO")])
def test_engines_that_shard_the_state_take_adamw_alone(engine, name, options):
    model = estimator(backbone="test_resnet", size=32)
    with pytest.raises(UserError, match=f"optim.name: {name} shards the state of adamw without amsgrad alone"):
        engine(Accelerator(cpu=True), model, build_optimizer(model, OptimConfig(**options)), 0.0)


def test_another_optimizers_checkpoint_is_one_line():
    saved = TrainState("digest", 0, 1, 1, optimizer="sgd").to_json()
    with pytest.raises(UserError, match="trained by sgd, not by lion; set optim.name"):
        TrainState("digest", 0, 1, 1, optimizer="lion").load(saved)
    older = {key: value for key, value in TrainState("digest", 0, 1, 1).to_json().items() if key != "optimizer"}
    TrainState("digest", 0, 1, 1).load(older)
    with pytest.raises(UserError, match="trained by adamw"):
        TrainState("digest", 0, 1, 1, optimizer="lion").load(older)


@pytest.mark.slow
@pytest.mark.parametrize("name, options", [("lamb", "{}"), ("adafactorbv", "{}"), ("adamw", "{amsgrad: true}")])
def test_a_run_resumes_to_the_same_bits(name, options, people, tmp_path):
    words = ["--optim.name", name, "--optim.options", options, "--optim.schedule", "poly", "--optim.layer_decay", "0.8"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        require_same_after_resume(people, tmp_path, *words)
