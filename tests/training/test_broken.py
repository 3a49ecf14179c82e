"""Training images that cannot be decoded: one count over all ranks, a share of the data, and named."""

import json
import os

import pytest
from accelerate import Accelerator

from mivolo_lite.errors import UserError
from mivolo_lite.training.broken import FEWEST, BrokenImages
from mivolo_lite.training.run_folder import RunFolder
from tests.training.launching import free_port, run_ranks


def images(first, last):
    return [f"{number:05d}.face: it is empty" for number in range(first, last)]


@pytest.mark.parametrize(
    "limit, samples, most", [(0.01, 60, FEWEST), (0.01, 10_000, 100), (0.5, 100, 50), (0, 100, 0), (3, 9, 3)]
)
def test_the_limit_is_a_share_or_a_number(tmp_path, limit, samples, most):
    broken = BrokenImages(RunFolder(tmp_path), Accelerator(cpu=True), limit, samples)
    broken.add(images(0, most))
    broken.gather(1, print)
    broken.add(images(0, most + 1))  # those met again count once
    with pytest.raises(UserError, match=f"{most + 1} images cannot be decoded, more than train.max_broken"):
        broken.gather(2, print)


def test_it_says_so_on_the_console_once_and_knows_them_after_a_resume(tmp_path, capsys):
    for _ in range(2):
        broken = BrokenImages(RunFolder(tmp_path), Accelerator(cpu=True), 0.5, 100)
        broken.add(images(0, 2))
        broken.gather(5, print)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith("2 training images cannot be decoded, the latest 00001.face: it is")
    lines = [json.loads(line) for line in (tmp_path / "broken.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == images(0, 2)


@pytest.mark.parametrize("content", [b"\xff\xfe\n5\n", b'{"image": 7}\n[', b'{"step": 1, "image": "a: b"}\n{'])
def test_a_damaged_list_is_read_as_far_as_it_can_be(tmp_path, content):
    (tmp_path / "broken.jsonl").write_bytes(content)
    assert RunFolder(tmp_path).broken_images() <= {"a: b"}


def share(rank, port, folder):
    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": "2", "LOCAL_RANK": f"{rank}", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = f"{port}"
    broken = BrokenImages(RunFolder(folder), Accelerator(cpu=True), 14, 1000)
    broken.add(images(10 * rank, 10 * rank + 8))  # neither rank has too many alone
    with pytest.raises(UserError, match="^data.train: 16 images cannot be decoded"):
        broken.gather(1, lambda _: None)


@pytest.mark.slow
def test_the_count_is_one_over_the_ranks_and_all_of_them_stop(tmp_path):
    port = free_port()
    run_ranks(share, [(rank, port, tmp_path) for rank in range(2)], timeout=120)
    assert len((tmp_path / "broken.jsonl").read_text().splitlines()) == 16
