"""The data of ``make quickstart`` gives every row of its report enough people."""

import re
from collections import Counter
from pathlib import Path

import pytest

from mivolo_lite.cli import main
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


@pytest.mark.slow
def test_every_bin_of_ages_and_every_subgroup_has_thirty_people(tmp_path):
    main([*packed_by("Makefile"), "--out", f"{tmp_path}/data", "--workers", "2"])
    labels = ShardIndex.load(tmp_path / "data" / "val").columns
    ages = Counter((labels["age_lo"] // 10).astype(int).tolist())
    subgroups = Counter(zip(labels["gender"].tolist(), labels["group"].tolist(), strict=True))
    assert len(ages) == 10 and min(ages.values()) >= FEWEST
    assert len(subgroups) == 10 and min(subgroups.values()) >= FEWEST
