"""Telling people apart, judged by pairs: against counting by hand, and where the answer is known beforehand."""

from itertools import combinations

import numpy as np
import pytest

from mivolo_lite.evaluation.verification import (
    best_threshold,
    cosines,
    fold_accuracies,
    roc,
    sample_pairs,
    tar_at,
    verification,
)

PERSON = np.array([3, 0, 3, 1, 0, 3, 2], dtype=np.float32)


def as_sets(pairs):
    first, second, same = pairs
    return [{frozenset(pair) for pair in zip(first[kind], second[kind], strict=True)} for kind in (same, ~same)]


def test_all_pairs_of_one_person_and_as_many_of_two():
    every = list(map(frozenset, combinations(range(7), 2)))
    truly = {pair for pair in every if len({PERSON[one] for one in pair}) == 1}
    pairs = sample_pairs(PERSON, 100, np.random.default_rng(0))
    same, different = as_sets(pairs)
    assert same == truly and len(different) == len(truly) == 4 and not different & truly
    assert len(pairs.same) == 8


def test_every_pair_of_two_people_can_be_drawn_and_none_twice():
    sampled = set()
    for seed in range(60):
        same, different = as_sets(sample_pairs(PERSON, 3, np.random.default_rng(seed)))
        assert len(same) == len(different) == 3
        sampled |= different
    assert sampled == {frozenset(pair) for pair in combinations(range(7), 2) if PERSON[pair[0]] != PERSON[pair[1]]}


def test_a_crowd_of_few_people_and_of_many():
    for people in (2, 5_000):
        person = np.arange(20_000) % people
        pairs = sample_pairs(person, 1_000, np.random.default_rng(0))
        assert all(len(kind) == 1_000 for kind in as_sets(pairs))
        np.testing.assert_array_equal(person[pairs.first] == person[pairs.second], pairs.same)


@pytest.mark.parametrize("person", [np.zeros(50), np.arange(50.0), np.full(50, np.nan), np.zeros(0)])
def test_one_person_alone_and_nobody_twice_give_no_figure(person):
    assert verification(np.random.default_rng(0).normal(size=(len(person), 4)), person) is None


def test_the_best_threshold_by_trying_them_all():
    rng = np.random.default_rng(0)
    for _ in range(50):
        cosine, same = rng.integers(-5, 5, 12) / 5, rng.random(12) < 0.5
        best = max(np.mean((cosine > limit) == same) for limit in [-2, *np.unique(cosine)])
        threshold = best_threshold(cosine, same)
        assert np.isfinite(threshold) and np.mean((cosine > threshold) == same) == best


def test_ten_parts_by_hand():
    rng = np.random.default_rng(0)
    same = np.arange(60) < 30
    cosine = rng.normal(same * 0.5, 0.4)
    found = fold_accuracies(cosine, same, np.random.default_rng(5))
    again = np.random.default_rng(5)
    fold = np.empty(60, dtype=int)
    fold[:30], fold[30:] = again.permutation(30) % 10, again.permutation(30) % 10
    for number in range(10):
        others, own = fold != number, fold == number
        limit = best_threshold(cosine[others], same[others])
        assert found[number] == pytest.approx(np.mean((cosine[own] > limit) == same[own]))


def test_the_curve_and_its_area_are_those_of_ranks():
    rng = np.random.default_rng(0)
    same = rng.random(200) < 0.4
    cosine = np.round(rng.normal(same * 0.6, 0.5), 1)  # with ties
    far, tar = roc(cosine, same)
    one, two = cosine[same], cosine[~same]
    area = np.mean(one[:, None] > two) + np.mean(one[:, None] == two) / 2
    assert np.trapezoid(tar, far) == pytest.approx(area)
    limits = [limit for limit in np.unique(cosine) if np.mean(two >= limit) <= 0.1]
    assert tar_at(0.1, far, tar) == pytest.approx(np.mean(one >= min(limits)))
    assert (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)


def test_cosines():
    embedding = np.array([[3, 0], [0, 2], [5, 5], [0, 0]], dtype=np.float32)
    person = np.array([0, 0, 1, 1])
    pairs = sample_pairs(person, 10, np.random.default_rng(0))
    expected = {(0, 1): 0, (0, 2): 0.5**0.5, (1, 2): 0.5**0.5}
    for first, second, cosine in zip(pairs.first, pairs.second, cosines(embedding, pairs), strict=True):
        assert cosine == pytest.approx(expected.get((min(first, second), max(first, second)), 0))


def people_apart(noise, count=40, images=8, seed=0):
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(count), images).astype(np.float32)
    return (rng.normal(size=(count, 32))[person.astype(int)] + noise * rng.normal(size=(len(person), 32))), person


def test_perfect_embeddings():
    found = verification(*people_apart(0.01))
    assert found["accuracy"] == found["auc"] == found["tar"]["0.01"] == 1 and found["people"] == 40
    assert found["pairs"] == 2 * 40 * 28 and 0.7 < found["threshold"] < 1
    assert found["tar"]["0.001"] is None  # of 1,120 pairs of two people, one would be too many


def test_random_embeddings():
    vector, person = people_apart(0.0)
    found = verification(np.random.default_rng(1).normal(size=vector.shape), person)
    assert abs(found["accuracy"] - 0.5) < 0.04 and abs(found["auc"] - 0.5) < 0.04


def test_it_is_the_same_again_and_whatever_the_lengths_are():
    vector, person = people_apart(1.5)
    found = verification(vector, person)
    assert 0.6 < found["accuracy"] < 1 and verification(vector, person) == found
    longer = vector * np.random.default_rng(0).uniform(1, 9, (len(vector), 1))
    assert verification(longer, person)["accuracy"] == pytest.approx(found["accuracy"])
    assert verification(vector, person, seed=1)["accuracy"] != found["accuracy"]


def test_rows_without_a_image_or_a_name_do_not_count():
    vector, person = people_apart(1.5)
    found = verification(vector, person)
    nothing = np.full((5, 32), np.nan)
    more = np.concatenate([vector, nothing, vector[:5]]), np.concatenate([person, person[:5], np.full(5, np.nan)])
    assert verification(*more) == found
