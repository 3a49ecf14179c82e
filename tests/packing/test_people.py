"""Synthetic people: the same whoever draws them, labelled as promised, learnable but not by colour alone."""

import hashlib
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import decode
from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.labels import GENDERS
from mivolo_lite.packing.sources.people import PeopleSource
from mivolo_lite.packing.synthetic.canvas import Canvas, curve
from mivolo_lite.packing.synthetic.person import GROUPS, Person
from mivolo_lite.packing.synthetic.photo import render_photo

DIGEST = """
import hashlib
from mivolo_lite.packing.sources.people import PeopleSource
sample = PeopleSource(count=9, seed=3).read("0000007").samples[0]
print(hashlib.sha256(sample.face + sample.body).hexdigest())
"""


def test_a_photo_depends_on_seed_and_number_alone():
    source = PeopleSource(count=9, seed=3)
    forwards = [source.read(item).samples[0].members() for item in source.items()]
    backwards = [PeopleSource(count=9, seed=3).read(item).samples[0].members() for item in reversed(source.items())]
    assert forwards == backwards[::-1]


@pytest.mark.slow
def test_another_process_draws_the_same():
    sample = PeopleSource(count=9, seed=3).read("0000007").samples[0]
    elsewhere = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert elsewhere == hashlib.sha256(sample.face + sample.body).hexdigest()


def test_photos_of_a_series_and_of_two_series_differ():
    photos = [render_photo(seed, number).image.tobytes() for seed in (0, 1) for number in range(4)]
    assert len(set(photos)) == 8


def test_identities_differ():
    identities = [PeopleSource(3, seed).read(item).identity for seed in (0, 1) for item in PeopleSource(3).items()]
    assert len(set(identities)) == 6


def test_boxes_lie_in_the_photo_and_are_big_enough_to_crop():
    for number in range(40):
        photo = render_photo(0, number)
        height, width = photo.image.shape[:2]
        for x0, y0, x1, y1 in (photo.face, photo.body):
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert min(photo.body[2] - photo.body[0], photo.body[3] - photo.body[1]) >= 100
        assert photo.face[2] - photo.face[0] >= 40


def test_samples_hold_crops_labels_and_boxes():
    source = PeopleSource(count=6, crop_size=96)
    for item in source.items():
        (sample,) = source.read(item).samples
        face, body = decode(sample.face), decode(sample.body)
        assert max(body.shape) == 96 and max(face.shape) <= 96
        assert (body < 12).all(axis=2).mean() > 0.03, "the own face is blacked out"
        assert sample.labels.gender in GENDERS and sample.labels.group in GROUPS
        assert sample.labels.age[0] == sample.labels.age[1]
        assert sample.labels.extra["covered"] is False and len(sample.labels.extra["face_box"]) == 4


def test_people_are_of_all_ages_and_evenly_of_every_gender_and_group():
    rng = np.random.default_rng(0)
    people = [Person.at_random(rng) for _ in range(2000)]
    ages = np.array([person.age for person in people])
    assert ages.min() <= 1 and 90 <= ages.max() <= 100
    assert (np.histogram(ages, bins=8, range=(0, 80))[0] > 140).all()
    assert 0.45 < np.mean([person.gender == "M" for person in people]) < 0.55
    assert all(320 < sum(person.group == group for person in people) < 480 for group in GROUPS)


def test_uniform_ages_are_as_many_in_every_decade_and_change_nothing_else():
    people = [[Person.at_random(np.random.default_rng(number), ages) for number in range(1000)]
              for ages in ("population", "uniform")]  # fmt: skip
    counts = [np.histogram([person.age for person in some], bins=10, range=(0, 100))[0] for some in people]
    assert counts[0].min() < 30 and counts[1].min() > 70 and counts[1].max() < 130
    assert [person.gender for person in people[0]] == [person.gender for person in people[1]]
    plain, uniform = PeopleSource(count=1), PeopleSource(count=1, ages="uniform")
    assert plain.crop_policy["synthetic"] == {"seed": 0, "covered": 0.0}  # the digest of data packed before
    assert uniform.crop_policy["synthetic"] == {"seed": 0, "covered": 0.0, "ages": "uniform"}


def test_looks_follow_age_but_do_not_give_it_away():
    rng = np.random.default_rng(0)
    people = [Person.at_random(rng) for _ in range(1000)]
    age, face, body = (np.array([getattr(p, name) for p in people]) for name in ("age", "face_age", "body_age"))
    assert np.corrcoef(age, face)[0, 1] > 0.95 and np.corrcoef(age, body)[0, 1] > 0.95
    assert np.abs(face - age).mean() > 1 and np.abs(body - age).mean() > 1
    assert np.corrcoef(face - age, body - age)[0, 1] < 0.5, "each sees something that the other does not"


def test_covering_hides_the_face_and_changes_nothing_else():
    for number in range(12):
        bare, hidden = render_photo(0, number), render_photo(0, number, covered=1.0)
        assert bare.person == hidden.person and bare.face == hidden.face and hidden.covered and not bare.covered
        changed = (bare.image != hidden.image).any(axis=2)
        x0, y0, x1, y1 = bare.face
        assert changed[y0:y1, x0:x1].mean() > 0.5
        assert not changed[y1 + (y1 - y0) // 2 :].any(), "below the head nothing changes"


def test_covered_share():
    share = np.mean([render_photo(0, number, covered=0.5).covered for number in range(60)])
    assert 0.3 < share < 0.7


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"count": 5, "seed": -1}, {"count": 5, "covered": 1.5}, {"count": 5, "crop_size": 0}]
)
def test_impossible_options_are_one_clear_line(options):
    with pytest.raises(UserError, match="^--") as error:
        PeopleSource(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("closed", [True, False])
def test_a_curve_passes_through_its_points(closed):
    points = np.random.default_rng(0).normal(size=(6, 2))
    smooth = curve(points, closed)
    for point in points:
        assert np.linalg.norm(smooth - point, axis=1).min() < 1e-9


def test_a_pen_draws_where_it_says():
    image = np.zeros((60, 80, 3), np.uint8)
    canvas = Canvas(image, (40, 30), 20, np.pi / 2).child((0.5, 0), 0.5)
    x, y = canvas.place(0, 0)
    assert (x, y) == pytest.approx((40, 40))
    canvas.ellipse(0, 0, 0.3, 0.3, (255, 255, 255))
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert rows.mean() == pytest.approx(y, abs=0.5) and columns.mean() == pytest.approx(x, abs=0.5)


SIZE = 48


@cache
def faces_and_ages(count: int) -> tuple[np.ndarray, np.ndarray]:
    source = PeopleSource(count)
    samples = [source.read(item).samples[0] for item in source.items()]
    faces = np.stack([letterbox(decode(sample.face), SIZE) for sample in samples])
    return faces, np.array([sample.labels.age[0] for sample in samples])


@pytest.mark.slow
def test_mean_colours_do_not_tell_the_age():
    faces, ages = (values[:240] for values in faces_and_ages(1000))
    colours = np.c_[faces.mean(axis=(1, 2)), np.ones(len(faces))]
    weights = np.linalg.lstsq(colours[:160], ages[:160], rcond=None)[0]
    error = np.abs(colours[160:] @ weights - ages[160:]).mean()
    assert error > 0.5 * np.abs(ages[160:] - ages[:160].mean()).mean()


@pytest.mark.slow
def test_a_small_network_learns_the_age():
    faces, ages = faces_and_ages(1000)
    torch.manual_seed(0)
    x = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 128 - 1
    years = torch.from_numpy(ages).float()
    layers = [
        layer
        for ins, outs in ((3, 16), (16, 32), (32, 64))
        for layer in (nn.Conv2d(ins, outs, 3, 2, 1), nn.BatchNorm2d(outs), nn.ReLU())
    ]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 36, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(10):
        for batch in torch.randperm(800).split(32):
            loss = (network(x[batch])[:, 0] * 25 + 40 - years[batch]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        error = (network(x[800:])[:, 0] * 25 + 40 - years[800:]).abs().mean()
    assert error < 0.5 * (years[800:] - years[:800].mean()).abs().mean()
