"""What a run says of its speed."""

import time

from mivolo_lite.training.logger import RunLogger
from mivolo_lite.training.run_folder import RunFolder


def test_evaluating_and_saving_are_no_training(tmp_path):
    logger = RunLogger(RunFolder(tmp_path), 10, 0, active=False)
    logger.seconds_of_interval()
    with logger.paused():
        time.sleep(0.3)
    time.sleep(0.05)
    assert 0.05 <= logger.seconds_of_interval() < 0.25
