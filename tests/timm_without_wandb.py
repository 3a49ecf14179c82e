"""Imports timm without wandb, which it would import where that is installed, for 1 s of each test process."""

import sys

if "timm" not in sys.modules and "wandb" not in sys.modules:
    sys.modules["wandb"] = None
    import timm  # noqa: F401

    del sys.modules["wandb"]
