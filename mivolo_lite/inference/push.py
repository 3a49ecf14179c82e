"""Pushes a checkpoint to the Hugging Face hub: weights, card, a page, and ONNX on request."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mivolo_lite.card import CARD_FILE, EMA_FILE, MODEL_FILE, Card, locate, require_files, weights_file
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.about import trained_on
from mivolo_lite.evaluation.metrics import METRICS_FILE
from mivolo_lite.files import explain_write_errors, read_file
from mivolo_lite.hub import PREFIX, HubAddress, hub_client, hub_error
from mivolo_lite.inference.export import export
from mivolo_lite.inference.model_card import model_card

ONNX_FILE, PAGE = "model.onnx", "README.md"
_REPLACED = [ONNX_FILE, EMA_FILE]
"""Files that an earlier checkpoint may have left in a repository, and that would be taken for this one's."""


def push(
    checkpoint: Path | str,
    repo: str,
    onnx: bool = False,
    private: bool = False,
    evaluation: Path | str | None = None,
    licence: str = "",
    data_licences: Sequence[str] = (),
) -> str:
    """Upload a checkpoint in one commit, in place of an earlier one; the repository is created if it is missing.

    Args:
        checkpoint: as for ``Estimator.load``; if it has EMA weights, those are uploaded.
        repo: ``user/name``, perhaps with ``@revision``.
        onnx: also export and upload ``model.onnx``.
        private: make the repository private; an error if it is public already.
        evaluation: folder of an evaluation, whose errors the page shows with intervals.
        licence, data_licences: see ``model_card``.

    Returns:
        The commit's address.

    Raises:
        UserError: the checkpoint or the evaluation is not usable, or the hub rejects the upload.
    """
    address = HubAddress.read(repo)
    if address.file is not None:
        raise UserError(f"push: {repo}: give a repository as user/name, without a file")
    hub, source = hub_client(), locate(checkpoint)
    metrics = None if evaluation is None else _read_metrics(Path(evaluation))
    Estimator.load(source)  # an unusable checkpoint must not be published
    with TemporaryDirectory() as folder:
        _fill(Path(folder), source, onnx)
        names = sorted(path.name for path in Path(folder).iterdir())
        page = model_card(Card.load(folder), address.repo, trained_on(source), metrics, licence, data_licences, names)
        (Path(folder) / PAGE).write_text(page, encoding="utf-8")
        try:
            return _upload(hub, folder, address, private)
        except UserError:
            raise
        except Exception as error:  # its client raises its own errors, httpx's and the system's
            raise UserError(f"push {PREFIX}{address.repo}: {hub_error(error)}") from None


def _upload(hub: Any, folder: str, address: HubAddress, private: bool) -> str:
    api = hub.HfApi(library_name="mivolo-lite")
    api.create_repo(address.repo, private=private or None, exist_ok=True)
    if private and not api.model_info(address.repo).private:
        raise UserError(
            f"push {PREFIX}{address.repo}: it is a public repository already; make it private in its settings, or "
            "leave --private out"
        )
    commit = api.upload_folder(
        repo_id=address.repo,
        folder_path=folder,
        revision=address.revision,
        delete_patterns=_REPLACED,
        commit_message="Upload by mivolo-lite",
    )
    return str(commit.commit_url)


def _fill(folder: Path, source: Path, onnx: bool) -> None:
    require_files(source, MODEL_FILE, CARD_FILE)
    with explain_write_errors(folder):
        shutil.copyfile(weights_file(source), folder / MODEL_FILE)
        Card.load(source).to_share().save(folder)
    if onnx:
        export(folder, folder / ONNX_FILE)


def _read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of an evaluation; if it hid images in turn, the metrics of the most images."""
    try:
        metrics = json.loads(read_file(folder / METRICS_FILE))
        metrics |= {} if "inputs" not in metrics else metrics["inputs"][list(metrics["inputs"])[-1]]
        if metrics["n"] and metrics["by"] and metrics["data"]["folder"]:
            return metrics
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"--evaluation {folder}: has no {METRICS_FILE} of an evaluation")
