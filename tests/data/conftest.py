"""What many tests of data share."""

import pytest

from tests.data.tiny_shards import noise_jpeg


@pytest.fixture
def images(tmp_path):
    """A folder of 60 pictures named as UTKFace names them."""
    folder = tmp_path / "UTKFace"
    (folder / "deeper" / "still").mkdir(parents=True)
    for number in range(60):
        where = folder / ["", "deeper", "deeper/still"][number % 3]
        ending = ".jpg.chip.jpg" if number % 2 else ".jpg"
        (where / f"{number}_{number % 2}_{number % 5}_2017{number:013d}{ending}").write_bytes(noise_jpeg(number))
    return folder
