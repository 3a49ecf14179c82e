"""Credentials are hidden wherever a message or a file could show them, and nothing else is."""

import pytest

from mivolo_lite.config import read_run_config
from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import MachineError, UserError
from mivolo_lite.training.run_config import dump_run_config

WITH = [
    "http://me:s3cret@host/x/dataset.json: not there",
    "https://s3cret@host:8000/x",
    "https://me:p@s3cret@host/x",
    "[{'path': 'http://me:s3cret@host/a'}, b]",
    "https://host/x?token=s3cret",
    "https://host/x.tar?X-Amz-Credential=s3cret&X-Amz-Signature=s3cret, 403",
    "message='Forbidden', url=URL('https://host/x?sv=1&sig=s3cret')",
    "pipe:curl -H 'Authorization: Bearer s3cret-s3cret' https://host/x.tar",
    "connection refused (password=s3cret)",
]
WITHOUT = [
    "s3://bucket/people/train",
    "https://host/x.tar: cannot be read: is it there?",
    "data.train: file me@host.tar, see http://host/a",
    "hf://datasets/me/people@main/train",
    "--split train=0.9,val=0.1",
]


@pytest.mark.parametrize("text", WITH)
def test_they_are_hidden_and_the_host_is_not(text):
    for shown in (without_credentials(text), str(UserError(text)), str(MachineError(text))):
        assert "s3cret" not in shown and "***" in shown
        assert ("host" in shown) == ("host" in text)


@pytest.mark.parametrize("text", WITHOUT)
def test_all_else_stays(text):
    assert without_credentials(text) == text


def test_a_run_folder_does_not_hold_them():
    urls = ["--data.train", "http://me:s3cret@host/train", "--data.val", "https://host/val?token=s3cret"]
    text = dump_run_config(read_run_config(["--config", "configs/quickstart.yaml", *urls]))
    assert "s3cret" not in text and "http://***@host/train" in text
