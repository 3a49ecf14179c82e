"""The README sends nobody to what is not there."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) >= 8
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_every_configuration_that_a_command_names_exists():
    named = re.findall(r"configs/[a-z0-9_/]+\.yaml", README)  # X.yaml stands for any
    assert named and all((REPOSITORY / name).exists() for name in named)


def test_every_folder_of_the_map_exists():
    mapped = re.findall(r"^    ([\w./]+(?:/|\.py)|mivolo_lite/\w+) {2,}", README, flags=re.MULTILINE)
    assert len(mapped) >= 10
    assert [name for name in mapped if not (REPOSITORY / name).exists()] == []
