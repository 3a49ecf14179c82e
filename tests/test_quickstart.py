"""The data of ``make quickstart`` gives every row of its report enough people."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mivolo_lite.cli import main
from mivolo_lite.packing.synthetic.person import Person
from mivolo_lite.packing.synthetic.photo import SyntheticPhoto
from mivolo_lite.shards.index import ShardIndex

REPOSITORY = Path(__file__).parents[1]
PACKED = re.compile(r"mivolo-lite (pack people .*) --out data/quickstart\n")
FEWEST = 30
"""Of fewer, the report gives no error."""


def packed_by(page: str) -> list[str]:
    """The words of the one command of a page that packs the quickstart's people."""
    text = (REPOSITORY / page).read_text().replace("\\\n", " ")
    (words,) = PACKED.findall(text)
    return words.split()


def test_the_documentation_packs_as_the_makefile_does():
    assert packed_by("docs/getting-started.md") == packed_by("Makefile")


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make on this machine")
def test_make_help_has_every_target():
    listed = subprocess.run(["make", "--silent", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (targets,) = re.findall(r"^\.PHONY: (.*)", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"^make (\w+) ", listed.stdout, flags=re.MULTILINE)) == set(targets.split())


def photo_of_nothing(seed: int, number: int, covered: float, ages: str) -> SyntheticPhoto:
    """The person whom ``render_photo`` shows, in an empty image."""
    person = Person.at_random(np.random.default_rng([seed, number]), ages)
    return SyntheticPhoto(np.zeros((40, 40, 3), np.uint8), person, (10, 5, 30, 25), (5, 5, 35, 38), False)


def test_every_bin_of_ages_and_every_subgroup_has_thirty_people(tmp_path, monkeypatch):
    monkeypatch.setattr("mivolo_lite.packing.sources.people.render_photo", photo_of_nothing)
    main([*packed_by("Makefile"), "--out", f"{tmp_path}/data", "--workers", "1"])
    labels = ShardIndex.load(tmp_path / "data" / "val").columns
    ages = Counter((labels["age_lo"] // 10).astype(int).tolist())
    subgroups = Counter(zip(labels["gender"].tolist(), labels["group"].tolist(), strict=True))
    assert len(ages) == 10 and min(ages.values()) >= FEWEST
    assert len(subgroups) == 10 and min(subgroups.values()) >= FEWEST
