"""Tasks as data, on any model."""

import pytest
import torch

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.methods import METHODS
from mivolo_lite.tasks import Task

SPAN = {"min_age": 0, "max_age": 100}
LEVELS = {"name": "multilevel", "backbone": "test_resnet", "width": 32, "subnet_drop_rate": 0}
SMILE = {"name": "smile", "classes": ["no", "yes"], "subnet": "mouth"}
BEARD = {"name": "beard", "classes": ["none", "short", "long"], "subnet": "mouth"}
HEIGHT = {"name": "height", "kind": "regression", "subnet": "age"}
WHO = {"name": "who", "kind": "embedding"}


def estimator(tasks, model=LEVELS, method="classification"):
    torch.manual_seed(0)
    return Estimator(Card(dict(model), {"name": method}, dict(SPAN), image_size=32, tasks=tasks))


def faces(count=3):
    generator = torch.Generator().manual_seed(0)
    return Images.of(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator))


def test_saved_and_loaded_every_task_answers_the_same(tmp_path):
    made = estimator([SMILE, BEARD, HEIGHT, WHO]).eval()
    made.save(tmp_path)
    loaded = Estimator.load(tmp_path)
    with torch.inference_mode():
        before, after = made(faces()), loaded(faces())
    shapes = {name: tuple(output.shape[1:]) for name, output in after.items()}
    assert shapes == {"age": (101,), "gender": (2,), "smile": (2,), "beard": (3,), "height": (1,), "who": (32,)}
    assert all(torch.equal(output, after[name]) for name, output in before.items())


def test_tasks_of_one_subnet_share_it_and_others_do_not():
    made = estimator([SMILE, BEARD, HEIGHT, WHO]).train()
    assert set(made.subnets) == {"age", "gender", "mouth", "who"}
    for task, subnet in {"smile": "mouth", "beard": "mouth", "height": "age", "age": "age", "who": "who"}.items():
        made.zero_grad(set_to_none=True)
        made(faces())[task].square().sum().backward()
        touched = {name for name, part in made.subnets.items() if any(p.grad is not None for p in part.parameters())}
        assert touched == {subnet}


def test_flipped_a_yaw_has_the_other_sign():
    made = estimator([HEIGHT, {"name": "yaw", "kind": "regression", "mirror": "negate"}]).eval()
    mirrored = faces()._replace(pixels=faces().pixels.flip(-1))
    with torch.inference_mode():
        plain, other = made(faces()), made(mirrored)
        made.tta = "flip"
        both, both_mirrored = made(faces()), made(mirrored)
    assert torch.allclose(both["yaw"], (plain["yaw"] - other["yaw"]) / 2, atol=1e-6)
    assert torch.allclose(both["height"], (plain["height"] + other["height"]) / 2, atol=1e-6)
    assert torch.allclose(both["yaw"], -both_mirrored["yaw"], atol=1e-6)
    with pytest.raises(UserError, match="tasks: smile: mirror negate is of numbers"):
        Task(**SMILE, mirror="negate")


def test_without_subnets_tasks_read_the_features():
    made = estimator([SMILE, HEIGHT], {"name": "single", "backbone": "test_resnet"}).eval()
    assert not made.subnets.state_dict()
    output = made(faces())
    assert output["smile"].shape == (3, 2) and output["height"].shape == (3, 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tasks", [[], [SMILE, HEIGHT, WHO]])
def test_a_gradient_on_every_parameter_whatever_the_method(method, tasks):
    made = estimator(tasks, method=method).train()
    output = made(faces(4))
    sum(answer.float().square().sum() for answer in output.values()).backward()
    assert not [
        name for name, parameter in made.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]


@pytest.mark.parametrize(
    "tasks, message",
    [
        ([SMILE, SMILE], "more than one is called smile"),
        ([SMILE | {"name": "age"}], "age is a task of every model"),
        ([SMILE | {"name": "a.b"}], "cannot be the name"),
        ([SMILE | {"name": "keys"}], "cannot be the name"),
        ([SMILE | {"subnet": "a b"}], "cannot be the name"),
        ([SMILE | {"classes": ["yes"]}], "at least two"),
        ([SMILE | {"classes": ["yes", "no", "yes"]}], "smile: a class is given twice"),
        ([SMILE | {"name": "projection"}], "names another output"),
        ([HEIGHT | {"classes": ["a", "b"]}], "nothing else"),
        ([WHO | {"subnet": "mouth"}], "shares no subnet"),
        ([WHO, SMILE | {"subnet": "who"}], "no other task can share"),
        ([SMILE | {"name": "identity"}], "give it kind: embedding"),
        ([WHO | {"scale": 0}], "scale 0: above 0"),
    ],
)
def test_tasks_that_cannot_be_meant(tasks, message):
    with pytest.raises(UserError, match=message):
        estimator(tasks)


def test_a_model_without_an_embedding_says_so():
    with pytest.raises(UserError, match="no recognition embedding"):
        estimator([WHO], {"name": "dual", "face": "test_resnet", "body": "test_vit", "dim": 16})


def test_a_classifications_label_smoothing_is_torchs():
    logits, value = torch.randn(4, 3), torch.tensor([0.0, 2, 1, 1])
    loss = Task("mood", classes=["a", "b", "c"], label_smoothing=0.3).compute_loss(logits, value)
    expected = torch.nn.functional.cross_entropy(logits, value.long(), reduction="none", label_smoothing=0.3)
    torch.testing.assert_close(loss, expected)
