"""NIST's measures and the threshold curve, against loops that spell their definitions out."""

import numpy as np
import pytest
from scipy.special import bdtr, bdtrc

from mivolo_lite.evaluation.intervals import LIMIT
from mivolo_lite.evaluation.nist import LEGAL_AGES, _share_interval, nist_measures, threshold_curve
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.labels import GENDERS
from tests.evaluation.simulated import GROUPS, people, pick


@pytest.fixture(scope="module")
def everyone():
    return people(6000, seed=4)


def test_every_measure_is_as_nist_defines_it(everyone):
    p, found = everyone, nist_measures(everyone)
    rows = list(zip(p.age_lo, p.age, p.gender, p.group, strict=True))

    def share(first, last, low, high):
        own = [estimate for age, estimate, *_ in rows if first <= age <= last]
        return np.mean([low <= estimate < high + 1 for estimate in own])

    cells = [[abs(e - a) for a, e, g, _ in rows if (a, g) == (y, s)] for y in range(18, 31) for s in GENDERS]
    assert found["mae_18_30"]["value"] == pytest.approx(np.mean([np.mean(cell) for cell in cells]))
    assert found["mae_18_30"]["cells"] == found["mae_18_30"]["cells_wanted"] == 26
    cells = [[e >= 25 for a, e, g, r in rows if (a, g, r) == (17, s, t)] for s in GENDERS for t in GROUPS]
    assert found["challenge_25_fpr"]["value"] == pytest.approx(np.mean([np.mean(cell) for cell in cells]))
    assert found["challenge_25_fpr"]["n"] == sum(map(len, cells)) >= LIMIT and found["challenge_25_fpr"]["cells"] == 6
    years = [[abs(e - a) for a, e, *_ in rows if a == year] for year in range(13, 17)]
    assert found["teen_mae"]["value"] == pytest.approx(np.mean([np.mean(year) for year in years]))
    assert found["teen_tpr"]["value"] == pytest.approx(share(13, 16, 13, 16))
    assert found["teen_fnr_down"]["value"] == pytest.approx(share(13, 16, 8, 12))
    assert found["teen_fnr_up"]["value"] == pytest.approx(share(13, 16, 17, 22))
    assert found["child_fpr"]["value"] == pytest.approx(share(8, 12, 13, 16))
    assert found["adult_fpr"]["value"] == pytest.approx(share(17, 22, 13, 16))
    for row in found.values():
        assert row["interval"][0] <= row["value"] <= row["interval"][1]


@pytest.mark.slow
def test_a_missing_cell_or_too_few_images_give_no_figure(everyone):
    women_of_20 = (everyone.age_lo == 20) & (np.array(everyone.gender) == "F")
    row = nist_measures(pick(everyone, np.flatnonzero(~women_of_20)))["mae_18_30"]
    assert row["value"] is row["interval"] is None and (row["cells"], row["cells_wanted"]) == (25, 26)
    seventeen = np.cumsum(everyone.age_lo == 17)
    for limit, figure in ((LIMIT - 1, False), (LIMIT, True)):
        fewer = pick(everyone, np.flatnonzero((everyone.age_lo != 17) | (seventeen <= limit)))
        found = nist_measures(fewer)["challenge_25_fpr"]
        assert found["n"] == limit and (found["value"] is not None) == figure


def test_no_seen_error_is_no_certainty():
    teens, truth = people(60), np.repeat([15.0, 17.0], 30)
    exact = Predictions(teens.key, truth, teens.female, truth, truth, ["F"] * 60, ["a", "b"] * 30)
    found = nist_measures(exact)
    assert found["teen_tpr"]["interval"] == pytest.approx([0.884, 1], abs=1e-3)  # Clopper and Pearson's
    assert (
        found["teen_fnr_up"]["interval"] == found["challenge_25_fpr"]["interval"] == pytest.approx([0, 0.116], abs=1e-3)
    )


@pytest.mark.parametrize("sizes", [[30], [1, 1, 2, 5, 10, 11], [20] * 6])
@pytest.mark.parametrize("true", [0.01, 0.2])
def test_the_interval_of_a_mean_of_shares_holds_the_truth_as_often_as_it_says(sizes, true):
    shares = (np.random.default_rng(0).binomial(sizes, true, (2000, len(sizes))) / sizes).mean(axis=1)
    values, place = np.unique(shares, return_inverse=True)
    ends = np.array([_share_interval(value, np.array(sizes), 1.0) for value in values])[place]
    assert ((ends[:, 0] <= true) & (true <= ends[:, 1])).mean() > 0.94


def test_ages_known_as_ranges_have_no_single_year():
    p = people(500)
    ranged = Predictions(p.key, p.age, p.female, p.age_lo, p.age_lo + 3, p.gender, p.group)
    assert {row["n"] for row in nist_measures(ranged).values()} == {0}


@pytest.mark.parametrize("legal_age", LEGAL_AGES)
def test_the_curve_says_what_a_challenge_age_does(everyone, legal_age):
    curve, p = threshold_curve(everyone, legal_age), everyone
    assert curve["thresholds"] == list(range(legal_age, legal_age + 11))
    for place, challenge in enumerate(curve["thresholds"]):
        young, old = p.age_lo < legal_age, p.age_lo >= legal_age
        expected = {
            "false_pass": p.age[young] >= challenge,
            "false_pass_hardest": p.age[p.age_lo == legal_age - 1] >= challenge,
            "false_stop": p.age[old] < challenge,
            "inconvenience": p.age[p.age_lo >= challenge] < challenge,
        }
        for name, hits in expected.items():
            assert curve[name]["n"][place] == len(hits) >= LIMIT
            assert curve[name]["rate"][place] == pytest.approx(hits.mean()), name
            low, high = curve[name]["interval"][place]
            # Clopper and Pearson: seen shares as far away have a chance of 2.5 % at most on either side.
            seen = hits.sum()
            assert low == 0 or bdtrc(seen - 1, len(hits), low) == pytest.approx(0.025, rel=1e-6)
            assert high == 1 or bdtr(seen, len(hits), high) == pytest.approx(0.025, rel=1e-6)


def test_a_range_across_the_legal_age_is_on_neither_side():
    n = 40
    nobody = [None] * n
    p = Predictions(nobody, np.full(n, 30.0), np.full(n, np.nan), np.full(n, 10.0), np.full(n, 19.0), nobody, nobody)
    for legal_age, sides in ((18, (0, 0)), (21, (n, 0)), (10, (0, n))):
        curve = threshold_curve(p, legal_age)
        assert (curve["false_pass"]["n"][0], curve["false_stop"]["n"][0]) == sides
    assert threshold_curve(p, 18)["false_pass"]["rate"] == [None] * 11
