"""Speed of mivolo_d1_224 relative to a straightforward implementation, on 2 CPU cores in float32.

    python benchmarks/inference.py --rounds 15

The straightforward implementation has explicit softmax attention, batch norms as layers, and computes the body's branch
on a black image if there is no body. Both have the same random weights, take turns within one process, and must agree
to 1e-4. On a shared machine, ``--clock cpu`` with ``OMP_WAIT_POLICY=passive`` counts the CPU time of each.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from timing import interleaved, processor
from torch import Tensor, nn

from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS

BATCHES = (1, 8)
TOLERANCE = 1e-4
MODEL, SIDE = "mivolo_d1_224", 224
RESULTS = Path(__file__).parent / "results" / "inference.md"


class PlainMivolo(nn.Module):
    """MiVOLO written from its description, with the weights of this package's model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        model = copy.deepcopy(model)
        self.volo, self.black = model.volo, model.black
        for module in self.volo.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False

    def forward(self, face: Tensor, body: Tensor | None) -> Tensor:
        if body is None:
            body = self.black.expand_as(face)
        stems = self.volo.patch_embed
        grid = self.enhance(stems.proj1(stems.conv1(face)), stems.proj2(stems.conv2(body)))
        tokens = self.volo.forward_cls(self.volo.forward_tokens(grid.permute(0, 2, 3, 1)))
        return self.volo.norm(tokens)

    def enhance(self, face: Tensor, body: Tensor) -> Tensor:
        enhancer = self.volo.patch_embed.map
        face_query, face_key, face_value = self.split(nn.functional.conv2d(face, enhancer.qkv_f.weight))
        body_query, body_key, body_value = self.split(nn.functional.conv2d(body, enhancer.qkv_p.weight))
        face = self.attend(face_query, body_key, body_value)
        body = self.attend(body_query, face_key, face_value)
        both = torch.cat([face, body], dim=2).transpose(1, 2).reshape(len(face), *enhancer.norm.normalized_shape)
        both = nn.functional.layer_norm(both, enhancer.norm.normalized_shape, enhancer.norm.weight, enhancer.norm.bias)
        hidden = nn.functional.gelu(nn.functional.conv2d(both, enhancer.mlp.fc1.weight, enhancer.mlp.fc1.bias))
        return nn.functional.conv2d(hidden, enhancer.mlp.fc2.weight, enhancer.mlp.fc2.bias)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        positions = self.volo.patch_embed.map.pos_embed
        grid = query.unflatten(1, (positions.side, positions.side))
        rows = torch.einsum("bijd,ikd->bijk", grid, positions.height_rel[positions.distance])
        columns = torch.einsum("bijd,jld->bijl", grid, positions.width_rel[positions.distance])
        bias = (rows[..., :, None] + columns[..., None, :]).flatten(3).flatten(1, 2)
        weights = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5 + bias).softmax(dim=-1)
        return weights @ value

    @staticmethod
    def split(qkv: Tensor) -> tuple[Tensor, ...]:
        return qkv.flatten(2).transpose(1, 2).chunk(3, dim=-1)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(rounds: int, clock: Callable[[], float]) -> Iterator[str]:
    """Yield the rows of the table."""
    torch.manual_seed(0)
    model = MODELS[MODEL](MODELS[MODEL].Config(), SIDE).eval()
    plain, ours = PlainMivolo(model).eval(), model.for_inference()
    for batch in BATCHES:
        face, sampled = (torch.randn(batch, 3, SIDE, SIDE) for _ in range(2))
        for images, body in {"face and body": sampled, "face only": None}.items():
            packed = Images.of(face), Images.of(face[:0] if body is None else body), batch
            difference = (plain(face, body) - ours(*packed)).abs().max().item()
            if difference > TOLERANCE:
                raise SystemExit(f"{images}, batch {batch}: the outputs differ by {difference:.1e}")
            functions = {"plain": partial(plain, face, body), "ours": partial(ours, *packed)}
            seconds = interleaved(functions, rounds, clock)
            ratio = statistics.median(a / b for a, b in zip(seconds["plain"], seconds["ours"], strict=True))
            slow, fast = (1000 * statistics.median(seconds[name]) for name in ("plain", "ours"))
            yield f"| {images} | {batch} | {slow:.0f} | {fast:.0f} | {ratio:.2f} | {difference:.0e} |"


def header(options: argparse.Namespace) -> str:
    return f"""# {MODEL} in float32 against a straightforward implementation

`python benchmarks/inference.py --rounds {options.rounds} --threads {options.threads} --clock {options.clock}`
on {processor()}, {options.threads} thread(s), torch {torch.__version__}.
Medians over {options.rounds} interleaved rounds. Difference: the largest of any output.

| images | batch | straightforward, ms | this package, ms | speedup | difference |
| --- | ---: | ---: | ---: | ---: | ---: |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a shared machine")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [header(options)]
    print(lines[0])
    with torch.inference_mode():
        for row in measure(options.rounds, CLOCKS[options.clock]):
            print(row, flush=True)
            lines.append(row)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
