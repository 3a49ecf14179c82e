"""The pictures of a few samples, small, as they are shown in a report."""

from base64 import b64encode
from collections.abc import Sequence

import simplejpeg

from mivolo_lite.data.dataset import ShardDataset
from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.sampler import Draw

_SIDE, _QUALITY = 128, 85


def thumbnails(index: ShardIndex, samples: Sequence[int], inputs: Sequence[str]) -> list[str]:
    """For each sample, the first of its ``inputs`` that it has, as a ``data:`` address of a JPEG; empty for none."""
    if not len(samples):
        return []
    batch = ShardDataset(index, inputs, _SIDE).read([Draw(0, int(sample)) for sample in samples])
    addresses = []
    for row in range(len(batch)):
        name = next((name for name in inputs if getattr(batch, f"has_{name}")[row]), None)
        picture = None if name is None else getattr(batch, name)[row].movedim(0, -1).contiguous().numpy()
        addresses.append("" if picture is None else _address(simplejpeg.encode_jpeg(picture, quality=_QUALITY)))
    return addresses


def _address(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
