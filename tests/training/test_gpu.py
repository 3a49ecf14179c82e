"""What only a GPU can show. Skipped without one."""

import warnings

import pytest
import torch

from mivolo_lite.config import read_run_config
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.loop import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


DUAL = ("--model.name", "dual", "--model.face", "test_vit", "--model.body", "test_vit", "--model.dim", "32")
SINGLE = ("--model.name", "single", "--model.backbone", "test_vit")
RUNS = {
    "dldl_v2, dro": (*DUAL, "--data.drop_face", "0.3", "--method", "dldl_v2", "--optim.dro.by", "gender"),
    "regression, lds": (*DUAL, "--method", "regression", "--method.lds", "true", "--method.normalise", "true"),
    "classification, a worker": (*SINGLE, "--method", "classification", "--data.workers", "1"),
}


def waits(people, run, steps, options):
    """How often a run of so many steps waits for the GPU, where torch can tell."""
    words = [
        "--run", f"{run}", "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--data.workers", "0",
        "--data.image_size", "32", "--train.log_every", "1000", "--train.eval_every", "1000", "--optim.dro.fewest", "5",
        "--optim.global_batch", "20", "--optim.ema_decay", "0.9", "--train.precision", "bf16", *options,
    ]  # fmt: skip
    config = read_run_config(words)
    config.optim.epochs = steps * 20 / len(ShardIndex.load(people / "train"))
    trainer = Trainer(config)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.progress.total_steps == steps
    return sum("synchronizing" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_step_waits_once_for_the_gpu(people, tmp_path, options):
    """To learn whether its loss and gradient are finite, before the weights take them."""
    waits(people, tmp_path / "first", 3, options)  # whatever is done once
    assert waits(people, tmp_path / "long", 9, options) - waits(people, tmp_path / "short", 3, options) == 6
