"""Learning from teachers: laws of the loss, the same step however the batch is cut, and a real run that resumes."""

import copy
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.convert.ensemble import ensemble
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.methods import METHODS
from mivolo_lite.training.distillation import Answers, Teachers
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.step import OptimizerStep
from tests.shards.tiny_shards import make_shards
from tests.training.resuming import require_same_after_resume
from tests.training.test_step import batch_of, part
from tests.training.test_weighting import words

SPAN = {"min_age": 0, "max_age": 100}


def estimator(seed=0, method="dldl", size=64, backbone="test_vit", span=SPAN, **model):
    torch.manual_seed(seed)
    options = {"name": "single", "backbone": backbone} | model
    return Estimator(Card(options, {"name": method}, dict(span), image_size=size))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    estimator(7).save(folder)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_a_teacher_of_another(method, teacher):
    """A few steps on the teacher's answers alone bring the student's ages nearer to them."""
    student = estimator(1, method)
    student.method.fit_prior(torch.ones(101))
    teachers, images = Teachers([teacher], student), batch_of(8).images()
    answers = teachers.answers(images)
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-4)
    losses = []
    for _ in range(3):
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


def test_the_gender_is_of_the_teachers_that_estimate_it(tmp_path):
    for number in range(3):
        taught = estimator(number)
        taught.card.gender = number < 2
        taught.save(tmp_path / str(number))
    student, images = estimator(3), batch_of(4).images()
    three, two, none = (
        Teachers([tmp_path / name for name in names], student).answers(images) for names in ("012", "01", "2")
    )
    assert torch.equal(three.gender, two.gender) and none.gender is None
    assert not torch.allclose(three.age, two.age, atol=1e-3)


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
    result = OptimizerStep(engine, OptimConfig(teacher_weight=weight), 0, teachers=held)(batches, step=0)
    return torch.cat([parameter.detach().flatten() for parameter in student.parameters()]), result


def test_a_step_is_the_same_in_one_batch_and_in_two(teacher):
    student, batch = estimator(1), batch_of(8)
    whole, result = gradient(student, [batch], [teacher])
    halves, _ = gradient(student, [part(batch, slice(0, 4)), part(batch, slice(4, 8))], [teacher])
    alone, _ = gradient(student, [batch], None)
    assert torch.allclose(whole, halves, atol=1e-6) and not torch.allclose(whole, alone, atol=1e-4)
    assert result.losses[-1] > 0
    assert torch.equal(gradient(student, [batch], [teacher], 0.0)[0], alone)


@pytest.mark.slow
def test_a_teacher_teaches_nothing_about_images_that_it_does_not_see(tmp_path):
    """Of three teachers, two of faces and one of bodies; the samples have a face, both, a body."""
    for number, shown in enumerate(("face", "face", "body")):
        estimator(number, input=shown).save(tmp_path / str(number))
    student, batch = student_of("dual"), batch_of(3)
    face, body = (Images(batch.face.pixels[:2], torch.tensor(rows)) for rows in ([0, 1], [1, 2]))
    batch = replace(batch, face=face, body=body)
    of_face = Teachers([tmp_path / "0", tmp_path / "1"], student).answers(batch.images())
    of_body = Teachers([tmp_path / "2"], student).answers(batch.images())
    every = Teachers([tmp_path / str(number) for number in range(3)], student).answers(batch.images())
    assert of_face.seen.tolist() == [[True, True, False]] * 2 and of_body.seen.tolist() == [[False, True, True]]
    both = (2 * of_face.age[1] + of_body.age[1]) / 3
    torch.testing.assert_close(every.age, torch.stack([of_face.age[0], both, of_body.age[2]]))
    torch.testing.assert_close(every.probability[0], of_face.probability[0])
    torch.testing.assert_close(every.gender[2], of_body.gender[2])
    body_alone = replace(part(batch, slice(2, 3)), face=Images.none_of(64, "cpu"), body=Images.of(body.pixels[1:]))
    taught, result = gradient(student, [body_alone], [tmp_path / "0"])
    assert result.losses[-1] == 0 and torch.equal(taught, gradient(student, [body_alone], None)[0])


def test_the_teacher_learns_nothing(teacher):
    student = estimator(1)
    teachers = Teachers([teacher], student)
    before = copy.deepcopy(teachers.teachers[0].state_dict())
    teachers.loss(student(**batch_of(4).images()), teachers.answers(batch_of(4).images()), 1.0).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in teachers.teachers[0].state_dict().items())
    assert all(parameter.grad is None for parameter in teachers.teachers[0].parameters())
    assert isinstance(teachers.answers(batch_of(4).images()), Answers)


def test_a_teacher_that_learnt_no_ages_is_one_line(tmp_path):
    recognition = estimator(1)
    recognition.card.age = False
    recognition.save(tmp_path / "recognition")
    with pytest.raises(UserError, match="recognition learnt no ages, and would teach random ones"):
        Teachers([tmp_path / "recognition"], estimator(2))


def test_a_teacher_of_other_images_is_one_line(tmp_path):
    estimator(1, input="body").save(tmp_path / "body")
    with pytest.raises(UserError, match="optim.teachers: .*body looks at body, this model at face"):
        Teachers([tmp_path / "body"], estimator(2))


STUDENTS = {
    "single": {},
    "multilevel": {"name": "multilevel", "backbone": "test_resnet", "levels": 2},
    "dual": {"name": "dual", "backbone": None, "face": "test_resnet", "body": "test_vit"},
}


def student_of(kind, method="dldl"):
    options = {key: value for key, value in ({"backbone": "test_vit"} | STUDENTS[kind]).items() if value}
    torch.manual_seed(1)
    return Estimator(Card({"name": "single"} | options, {"name": method}, dict(SPAN), image_size=64))


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDENTS)
def test_features_of_other_widths_are_learnt_by_their_direction(kind, tmp_path):
    for number, backbone in enumerate(("test_vit", "test_resnet")):
        estimator(number, backbone=backbone).save(tmp_path / backbone)
    student, folders = student_of(kind), [tmp_path / "test_vit", tmp_path / "test_resnet"]
    teachers, plain = Teachers(folders, student, 3.0), Teachers(folders, student_of(kind))
    batch = batch_of(6)
    images = replace(batch, body=batch.face).images() if kind == "dual" else batch.images()
    answers, output = teachers.answers(images), student(**images)
    expected, begin = [], 0
    for folder in folders:
        teacher = Estimator.load(folder)
        teacher.projection = torch.nn.Identity()
        features = teacher(images["face"])["projection"]
        own = output["projection"][:, begin : begin + features.shape[1]]
        begin += features.shape[1]
        expected.append(1 - (own * features).sum(1) / own.norm(dim=1) / features.norm(dim=1))
    distance = teachers.loss(output, answers, 1.0) - plain.loss(output, replace(answers, features=None), 1.0)
    torch.testing.assert_close(distance, 3 * torch.stack(expected).mean(0), rtol=1e-4, atol=1e-4)
    assert begin == output["projection"].shape[1] == sum(teachers.widths)


def test_the_feature_distance_is_0_for_the_teachers_own_features(teacher):
    student = Estimator.load(teacher)
    teachers = Teachers([teacher], student, 1.0)
    torch.nn.init.eye_(student.projection.weight)
    torch.nn.init.zeros_(student.projection.bias)
    images = batch_of(5).images()
    assert teachers.loss(student(**images), teachers.answers(images), 1.0).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("models", [("test_vit", "test_resnet"), ("multilevel", "swinface")])
def test_features_of_an_ensemble_are_those_of_its_members(models, tmp_path):
    options = {"multilevel": STUDENTS["multilevel"], "swinface": {"name": "swinface", "backbone": None}}
    for number, model in enumerate(models):
        chosen = {"backbone": model} | options.get(model, {})
        torch.manual_seed(number)
        card = Card({"name": "single"} | {k: v for k, v in chosen.items() if v}, {"name": "dldl"}, dict(SPAN), 64)
        card.normalisation = {"mean": [0.5] * 3, "std": [0.5] * 3}
        Estimator(card).save(tmp_path / model)
    folders = [tmp_path / model for model in models]
    student, images = estimator(3), batch_of(5).images()
    separate = Teachers(folders, estimator(3), 1.0).answers(images).features
    teachers = Teachers([ensemble(folders, tmp_path / "ensemble")], student, 1.0)
    answers = teachers.answers(images)
    torch.testing.assert_close(answers.features, separate)
    loss = teachers.loss(student(**images), answers, 1.0)
    loss.mean().backward()
    assert loss.shape == (5,) and student.projection.weight.grad.any()


def test_a_step_on_features_is_the_same_in_one_batch_and_in_two(teacher):
    student, batch, steps = estimator(1), batch_of(8), []
    Teachers([teacher], student, 1.0)
    for batches in ([batch], [part(batch, slice(0, 3)), part(batch, slice(3, 8))]):
        model = copy.deepcopy(student)
        teachers = Teachers([teacher], model, 1.0)
        model.projection.load_state_dict(student.projection.state_dict())
        engine = DataParallel(Accelerator(cpu=True), model, torch.optim.SGD(model.parameters(), lr=1.0), 0.0)
        OptimizerStep(engine, OptimConfig(), 0, teachers=teachers)(batches, step=0)
        steps.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        assert not torch.equal(model.projection.weight, student.projection.weight)
    torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-5)  # gradients of sums in another order


def test_what_is_kept_for_inference_has_no_projection(teacher, tmp_path):
    student = estimator(1)
    Teachers([teacher], student, 1.0)
    student.save(tmp_path / "best")
    assert not any(name.startswith("projection") for name in load_file(tmp_path / "best/model.safetensors"))
    assert Estimator.load(tmp_path / "best").projection is None
    student.load_weights(tmp_path / "best")


def test_features_without_teachers_are_one_line():
    with pytest.raises(UserError, match="optim.teacher_features: there are no optim.teachers"):
        OptimConfig(teacher_features=1.0)
    with pytest.raises(UserError, match="optim.teacher_weight 0: optim.teacher_features counts times it"):
        OptimConfig(teachers=["x"], teacher_features=1.0, teacher_weight=0.0)


@pytest.mark.slow
def test_a_run_on_features_resumes_to_the_same_bits(people, teacher, tmp_path):
    words = ["--optim.teachers", f"[{teacher}]", "--optim.teacher_features", "2", "--optim.ema_decay", "0.9"]
    run = require_same_after_resume(people, tmp_path, *words)
    last = sorted((run / "checkpoints").iterdir())[-1]
    assert "projection.weight" in load_file(last / "model.safetensors")
    assert Estimator.load(last).projection is None


@pytest.mark.slow
def test_images_without_labels_are_learnt_from_a_teacher_alone(people, teacher, tmp_path, capsys):
    index = make_shards(tmp_path / "unlabelled", [40])
    index.columns["age_lo"][:] = index.columns["age_hi"][:] = float("nan")
    index.columns["gender"][:] = 255
    index.save()
    options = ["--data.train", f"{index.folder}", "--optim.teachers", f"[{teacher}]"]
    main(["train", *words(people, tmp_path / "run", *options)])
    assert "labels to learn from: 0 age, 0 gender, 27 of the teachers" in capsys.readouterr().out
    assert Estimator.load(tmp_path / "run/best").card.gender


@pytest.mark.slow
def test_a_run_with_a_teacher_resumes_to_the_same_bits(people, teacher, tmp_path):
    run = require_same_after_resume(people, tmp_path, "--optim.teachers", f"[{teacher}]")
    assert "teacher_loss" in (run / "metrics.jsonl").read_text()
