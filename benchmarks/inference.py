"""How much faster mivolo_d1_224 answers than the same model written plainly, on 2 CPU cores in float32.

    python benchmarks/inference.py [--rounds 15] [--out benchmarks/results/inference.json]

Plainly means: softmax attention spelled out, batch norms as layers, and the body's branch run on a black picture where
there is no body. Both have the same random weights, take turns within one process, and must agree to 1e-4.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mivolo_lite.models import MODELS
from mivolo_lite.models.mivolo_inference import for_inference

CORES = 2
BATCHES = (1, 8)
TOLERANCE = 1e-4
MODEL, SIDE = "mivolo_d1_224", 224


class PlainMivolo(nn.Module):
    """MiVOLO as its description reads, with the weights of ours."""

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


def interleaved(functions: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each function; they take turns, so that a busy machine slows all alike."""
    seconds = {name: [] for name in functions}
    for name in list(functions) * 2:
        functions[name]()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(rounds: int) -> list[dict]:
    torch.manual_seed(0)
    model = MODELS[MODEL](MODELS[MODEL].Config(), SIDE).eval()
    plain, ours = PlainMivolo(model).eval(), for_inference(model)
    rows = []
    for batch in BATCHES:
        face, drawn = (torch.randn(batch, 3, SIDE, SIDE) for _ in range(2))
        for pictures, body in {"face and body": drawn, "face only": None}.items():
            error = (plain(face, body) - ours(face, body)).abs().max().item()
            if error > TOLERANCE:
                raise SystemExit(f"{pictures}, batch {batch}: the outputs differ by {error:.1e}")
            times = interleaved({"plain": partial(plain, face, body), "ours": partial(ours, face, body)}, rounds)
            rows.append(
                {
                    "pictures": pictures,
                    "batch": batch,
                    "plain_ms": round(1e3 * times["plain"], 1),
                    "ours_ms": round(1e3 * times["ours"], 1),
                    "times_as_fast": round(times["plain"] / times["ours"], 2),
                    "largest_difference": float(f"{error:.1e}"),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    with torch.inference_mode():
        rows = measure(arguments.rounds)
    machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": CORES, "rounds": arguments.rounds}
    if arguments.out:
        arguments.out.write_text(json.dumps({"model": MODEL, **machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
