"""The engines for training, by their names in a launch."""

from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.distributed.fsdp2 import FullySharded
from mivolo_lite.distributed.zero import Zero

ENGINES: dict[str, type[DataParallel]] = {"ddp": DataParallel, "zero": Zero, "fsdp2": FullySharded}
