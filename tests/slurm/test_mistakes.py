"""What the batch files say of a start that cannot work, without a cluster."""

import os
import subprocess
from pathlib import Path

import pytest

from mivolo_lite.package_files import copy_launch_files

LAUNCH = Path(__file__).parents[2] / "launch" / "slurm"
ARRAY = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "2"}


@pytest.mark.parametrize(
    ("file", "environment", "message"),
    [
        ("train.sbatch", {}, "train.sbatch: {folder}: no launch/slurm here; submit from the folder that holds launch"),
        ("train.sbatch", {"SLURM_STEP_ID": "0"}, "train.sbatch: started by srun; start it with sbatch"),
        ("pack.sbatch", {}, "pack.sbatch: no array; as in: sbatch --array=0-15 launch/slurm/pack.sbatch utkface"),
        ("pack.sbatch", ARRAY | {"SLURM_ARRAY_TASK_COUNT": "2"}, "pack.sbatch: the tasks of the array have gaps"),
        (
            "pack.sbatch",
            ARRAY | {"SLURM_ARRAY_TASK_COUNT": "3", "PYTHON": "no-such-program exec python"},
            "pack.sbatch: PYTHON=no-such-program exec python: no-such-program is not found on",
        ),
    ],
)
def test_a_wrong_start_is_one_line_that_says_the_right_one(file, environment, message, tmp_path):
    others = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        ["bash", LAUNCH / file, "utkface"],
        env=others | {"SLURM_SUBMIT_DIR": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith(message.format(folder=tmp_path)), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"PYTHON": "no-such-program exec python"}, "no-such-program exec python: no-such-program is not found on"),
        ({"RETRIES": "many"}, "train.sbatch: RETRIES=many: how often in a row is a number"),
    ],
)
def test_a_choice_of_train_sbatch_that_cannot_be_is_named(choice, message, tmp_path):
    copy_launch_files(tmp_path / "launch")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment |= {"SLURM_SUBMIT_DIR": str(tmp_path)} | choice
    done = subprocess.run(["bash", LAUNCH / "train.sbatch", "a.yaml"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr


def test_a_shell_of_srun_in_which_a_job_was_submitted_is_no_step_of_it(tmp_path):
    script = tmp_path / "slurm_script"  # as SLURM calls its copy
    script.write_bytes((LAUNCH / "train.sbatch").read_bytes())
    environment = os.environ | {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_STEP_ID": "0"}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
    assert "no launch/slurm here" in done.stderr
