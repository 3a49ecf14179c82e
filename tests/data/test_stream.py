"""The stock webdataset pipeline gives batches of the same kind."""

from itertools import islice

import pytest
import torch

from mivolo_lite.data.loader import DataConfig
from mivolo_lite.data.readers import StreamReader
from mivolo_lite.data.sampler import BatchPlan
from mivolo_lite.errors import UserError
from tests.data.tiny_shards import make_shards


@pytest.mark.parametrize("address", ["pipe:cat {folder}/part-0000.tar", "{folder}/part-{{0000..0001}}.tar"])
def test_batches_from_a_pipe_and_from_a_pattern(tmp_path, address):
    make_shards(tmp_path, [9, 8])
    config = DataConfig(train=address.format(folder=tmp_path), image_size=16, workers=0, stream_samples=17)
    reader = StreamReader(config, seed=0)
    batches = list(islice(reader.batches(("face", "body"), BatchPlan.resolve(8, 4, 1), 0, 0, 3), 6))
    for batch in batches:
        assert len(batch) == 4 and batch.face.shape == batch.body.shape == (4, 3, 16, 16)
        assert batch.face.dtype == torch.uint8 and (batch.has_face | batch.has_body).all()
        assert not batch.face[~batch.has_face].any()
    assert any(batch.age.known.any() for batch in batches)


def test_a_stream_must_be_told_its_length():
    with pytest.raises(UserError, match="data.stream_samples"):
        StreamReader(DataConfig(train="pipe:cat x.tar"), seed=0)
