"""Learning from teachers: laws of the loss, the same step however the batch is cut, and a real run that resumes."""

import copy
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.distributed.engine import DataParallel
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.labels import AgeRange
from mivolo_lite.methods import METHODS
from mivolo_lite.training.distillation import Answers, Teachers
from mivolo_lite.training.step import OptimizerStep
from tests.training.test_step import batch_of, part

SPAN = {"min_age": 0, "max_age": 100}


def estimator(seed=0, method="dldl", size=64, backbone="test_vit", span=SPAN, **model):
    torch.manual_seed(seed)
    options = {"name": "single", "backbone": backbone} | model
    return Estimator(Card(options, {"name": method}, dict(span), image_size=size))


@pytest.fixture
def teacher(tmp_path):
    estimator(7).save(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_a_teacher_of_another(method, teacher):
    """A few steps on the teacher's answers alone bring the student's ages nearer to them."""
    student = estimator(1, method)
    student.method.fit_prior(torch.ones(101))
    teachers, images = Teachers([teacher], student), batch_of(8).images()
    answers = teachers.answers(images)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = teachers.loss(student(**images), answers, gender_weight=1.0)
        assert loss.shape == (8,) and torch.isfinite(loss).all()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.detach().mean())
    assert losses[-1] < losses[0]


def test_the_loss_is_0_for_a_student_that_answers_as_its_teacher(teacher):
    student = Estimator.load(teacher)
    images = batch_of(5).images()
    teachers = Teachers([teacher, teacher], student)
    loss = teachers.loss(student(**images), teachers.answers(images), 1.0)
    assert loss.abs().max() < 1e-5


def test_several_teachers_answer_their_mean_on_the_students_span(tmp_path):
    wide = {"min_age": 0, "max_age": 110}
    estimator(1).save(tmp_path / "a")
    estimator(2, size=32, span=wide).save(tmp_path / "b")  # sees the images at its own size
    student = estimator(3, span={"min_age": 10, "max_age": 90})
    images = batch_of(4).images()
    one, two = (Teachers([tmp_path / name], student).answers(images) for name in "ab")
    both = Teachers([tmp_path / "a", tmp_path / "b"], student).answers(images)
    assert torch.allclose(both.probability, (one.probability + two.probability) / 2, atol=1e-6)
    assert torch.allclose(both.age, (one.age + two.age) / 2, atol=1e-4)
    assert both.probability.shape == (4, 81) and torch.allclose(both.probability.sum(1), torch.ones(4))


def test_a_regression_teacher_gives_its_mean_age(tmp_path):
    estimator(1, "regression").save(tmp_path / "a")
    student = estimator(2)
    answers = Teachers([tmp_path / "a"], student).answers(batch_of(4).images())
    assert answers.probability is None
    age = AgeRange(answers.age, answers.age, torch.ones(4, dtype=torch.bool))
    output = student(**batch_of(4).images())
    loss = Teachers([tmp_path / "a"], student).loss(output, replace(answers, gender=None), 1.0)
    assert torch.allclose(loss, student.method.loss(output["age"], age) / student.method.loss_unit)


def gradient(student, batches, teachers, weight=1.0):
    student = copy.deepcopy(student)
    engine = DataParallel(Accelerator(cpu=True), student, torch.optim.SGD(student.parameters(), lr=1.0), 0.0)
    held = None if teachers is None else Teachers(teachers, student)
    result = OptimizerStep(engine, 1.0, 0, teachers=held, teacher_weight=weight)(batches, step=0)
    return torch.cat([parameter.detach().flatten() for parameter in student.parameters()]), result


def test_a_step_is_the_same_in_one_batch_and_in_two(teacher):
    student, batch = estimator(1), batch_of(8)
    whole, result = gradient(student, [batch], [teacher])
    halves, _ = gradient(student, [part(batch, slice(0, 4)), part(batch, slice(4, 8))], [teacher])
    alone, _ = gradient(student, [batch], None)
    assert torch.allclose(whole, halves, atol=1e-6) and not torch.allclose(whole, alone, atol=1e-4)
    assert result.teacher_loss > 0
    assert torch.equal(gradient(student, [batch], [teacher], 0.0)[0], alone)


def test_the_teacher_learns_nothing(teacher):
    student = estimator(1)
    teachers = Teachers([teacher], student)
    before = copy.deepcopy(teachers.teachers[0].state_dict())
    teachers.loss(student(**batch_of(4).images()), teachers.answers(batch_of(4).images()), 1.0).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in teachers.teachers[0].state_dict().items())
    assert all(parameter.grad is None for parameter in teachers.teachers[0].parameters())
    assert isinstance(teachers.answers(batch_of(4).images()), Answers)


def test_a_teacher_of_other_images_is_one_line(tmp_path):
    estimator(1, input="body").save(tmp_path / "body")
    with pytest.raises(UserError, match="optim.teachers: .*body looks at body, this model at face"):
        Teachers([tmp_path / "body"], estimator(2))


@pytest.mark.slow
def test_a_run_with_a_teacher_resumes_to_the_same_bits(people, teacher, tmp_path):
    words = ["train", "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--optim.global_batch", "16"]
    words += ["--model.backbone", "test_resnet", "--data.image_size", "64", "--data.workers", "0"]
    words += ["--optim.teachers", f"[{teacher}]", "--train.save_every", "1", "--optim.epochs"]
    main([*words, "2", "--run", f"{tmp_path}/a"])
    main([*words, "2", "--run", f"{tmp_path}/b", "--train.keep", "1000"])
    for path in sorted((tmp_path / "b/checkpoints").iterdir())[2:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    main([*words, "2", "--run", f"{tmp_path}/b", "--resume", "auto"])
    first, second = (load_file(tmp_path / name / "best/model.safetensors") for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "teacher_loss" in (tmp_path / "a/metrics.jsonl").read_text()
