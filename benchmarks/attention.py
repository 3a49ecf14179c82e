"""Time and memory of MiVOLO's attention with relative positions: ``python benchmarks/attention.py``.

Compares ``attend``, which has positions as additional channels, with the same attention and an explicit (N, N) table of
biases. Forward and backward pass of one direction for one image, at every image size of MiVOLO, each in a separate
process, in float32 on the CPU.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from timing import in_a_process, machine, write_result
from torch import Tensor

from mivolo_lite.models.mivolo import PATCH, SIZES
from mivolo_lite.models.mivolo_enhancer import RelativePositions, attend

RESULTS = Path(__file__).parent / "results" / "attention.md"
DIM = {"d1": 192, "d2": 256, "d3": 256, "d4": 384, "d5": 384}


def attend_with_table(query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Tensor:
    """``attend`` with an explicit table of the biases of all pairs, as in the formula."""
    rows, columns = positions(query).chunk(2, dim=-1)
    bias = rearrange(rows[..., :, None] + columns[..., None, :], "b n h w -> b 1 n (h w)")
    query, key, value = (rearrange(x, "b n d -> b 1 n d") for x in (query, key, value))
    return rearrange(F.scaled_dot_product_attention(query, key, value, attn_mask=bias), "b 1 n d -> b n d")


WAYS = {"attend": attend, "table": attend_with_table}


def measure(way: str, dim: int, side: int, repeats: int) -> tuple[float, float, list[np.ndarray]]:
    """The lowest CPU time in seconds, the memory in MB, and the output with the gradients."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    positions = RelativePositions(side, dim)
    inputs = [torch.randn(1, side * side, dim, requires_grad=True) for _ in range(3)]
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(repeats):
        start = time.process_time()
        output = WAYS[way](*inputs, positions)
        gradients = torch.autograd.grad(output.square().mean() * side * side, [*inputs, *positions.parameters()])
        seconds.append(time.process_time() - start)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return min(seconds), memory, [tensor.detach().numpy() for tensor in (output, *gradients)]


def row(model: str, size: int, repeats: int) -> str:
    side = size // PATCH
    found = [in_a_process(measure, way, DIM[model], side, repeats) for way in WAYS]
    (seconds, memory, tensors), (table_seconds, table_memory, table_tensors) = found
    largest = max(abs(a - b).max() / abs(b).max() for a, b in zip(tensors, table_tensors, strict=True))
    width = DIM[model] + 2 * side
    return (
        f"| {model}_{size} | {side * side:,} | {width} | {seconds:.2f} | {table_seconds:.2f} | {memory:.0f} "
        f"| {table_memory:.0f} | {largest:.0e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    where = machine()  # before the benchmark loads it
    rows = "\n".join(row(model, size, options.repeats) for model, sizes in SIZES.items() for size in sizes)
    text = f"""# MiVOLO's attention without a table of biases

`python benchmarks/attention.py --repeats {options.repeats}` on one of {where}.
Forward and backward pass for one image in one direction, float32. Times: lowest of {options.repeats} repetitions.

| | tokens N | width | CPU s | with the (N, N) table | MB | with the table | largest difference |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

Width: the width of queries, keys and values, with the positions as additional channels. Largest difference: of the
output and of all gradients, those of the position tables included, relative to the largest value of each.
"""
    write_result(RESULTS, text)


if __name__ == "__main__":
    main()
