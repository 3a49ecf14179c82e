"""Addresses on the Hugging Face hub: ``hf://user/name``, ``hf://user/name@revision``, ``hf://user/name/FILE``."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mivolo_lite.errors import UserError, one_line

PREFIX = "hf://"

_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^/\s]+))?(?:/(?P<file>[^\s@]+))?")
_FILES = ["model.yaml", "config.json", "*.safetensors", "README.md", "LICENSE*"]
"""Files that are downloaded from a repository: checkpoints and licences, but no code and no pickles."""


class HubAddress(NamedTuple):
    """A model repository of the hub, or a file in it.

    Attributes:
        repo: ``user/name``.
        revision: branch, tag or commit; None for the default branch.
        file: path within the repository; None for the checkpoint in its root.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def read(cls, address: str) -> "HubAddress":
        """The parts of ``hf://user/name[@revision][/FILE]``. Raises UserError for any other text."""
        match = _REPOSITORY.fullmatch(address.removeprefix(PREFIX))
        if match is None:
            raise UserError(
                f"{address}: not an address on the hub; write {PREFIX}user/name or {PREFIX}user/name@revision"
            )
        return cls(**match.groupdict())


def is_hub_address(address: object) -> bool:
    """Whether it begins with ``hf://``."""
    return isinstance(address, str) and address.startswith(PREFIX)


def local_copy(address: Path | str) -> Path:
    """A local folder or file, or the cached copy of an address on the hub, downloaded if needed.

    Raises:
        UserError: the hub does not respond, has no such repository, or huggingface_hub is not installed.
    """
    return _fetch(str(address)) if is_hub_address(address) else Path(address)


def hub_client() -> Any:
    """The module huggingface_hub. Raises UserError if it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError('huggingface_hub is missing; pip install "mivolo-lite[hf]"') from None
    return huggingface_hub


@cache
def _fetch(address: str) -> Path:
    hub, (repo, revision, file) = hub_client(), HubAddress.read(address)
    try:
        if file is not None:
            return Path(hub.hf_hub_download(repo, file, revision=revision))
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # its client raises its own errors, and those of httpx, requests and the system
        raise UserError(f"{address}: {hub_error(error)}") from None


def hub_error(error: Exception) -> str:
    """An error of the hub's client in one line."""
    kind = type(error).__name__
    known = {
        "RepositoryNotFoundError": "there is no such repository, or it is private; `hf auth login` signs in",
        "GatedRepoError": "its owner wants to be asked on its page first; then `hf auth login`",
        "RevisionNotFoundError": "it has no such revision",
        "RemoteEntryNotFoundError": "it has no such file",
        "LocalEntryNotFoundError": "the hub does not answer, and there is no copy of it here",
    }
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403) and kind not in known:
        return "it refuses this token, or there is none; `hf auth login` signs in with one that may write there"
    return known.get(kind) or f"the hub's client says: {one_line(error)[:300]}"
