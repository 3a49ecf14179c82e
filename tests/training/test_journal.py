"""What a run says of its speed."""

import time

from mivolo_lite.training.journal import Journal
from mivolo_lite.training.run_folder import RunFolder


def test_evaluating_and_saving_are_no_training(tmp_path):
    journal = Journal(RunFolder(tmp_path), 10, 0, active=False)
    journal.lap()
    with journal.paused():
        time.sleep(0.3)
    time.sleep(0.05)
    assert 0.05 <= journal.lap() < 0.25
