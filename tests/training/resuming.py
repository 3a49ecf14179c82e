"""A run that is cut and resumed, against one that is not."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from mivolo_lite.cli import main


def require_same_after_resume(people: Path, folder: Path, *words: str, epochs: float = 2, keep: int = 2) -> Path:
    """Train a tiny model in ``folder/a``; the same in ``folder/b``, from whose first checkpoints on it is resumed. All
    tensors of the last checkpoints, and of the best weights, must be equal to the bit.

    Returns:
        The folder of the run that was not cut.
    """
    common = ["train", "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--data.workers", "0"]
    common += ["--model.backbone", "test_resnet", "--data.image_size", "32", "--optim.global_batch", "16"]
    common += ["--optim.epochs", str(epochs), "--train.save_every", "1", "--train.keep", "1000", *words]
    main([*common, "--run", f"{folder}/a"])
    main([*common, "--run", f"{folder}/b"])
    for path in sorted((folder / "b/checkpoints").iterdir())[keep:]:
        shutil.rmtree(path)
    main([*common, "--run", f"{folder}/b", "--resume", "auto"])
    first, second = (sorted((folder / name / "checkpoints").iterdir())[-1] for name in "ab")
    assert first.name == second.name
    files = [path.name for path in first.glob("*.safetensors")]
    pairs = [(first / name, second / name) for name in files]
    for one, other in [*pairs, tuple(folder / name / "best/model.safetensors" for name in "ab")]:
        expected, found = load_file(one), load_file(other)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected), one.name
    return folder / "a"
