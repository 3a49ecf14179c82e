"""Time a training step of every method's head and loss, relative to a linear layer with cross entropy.

    python benchmarks/heads.py --batch 256 --features 2048 --repeats 15

A step is the head forward, the loss, the gradients of the head and of the features, and ``refit``. Each repetition
times every method once, in turn, over as many steps as the forest takes between two refits of its leaves, and ratios
are computed within a repetition. The table has their medians, so other load on the machine has little influence.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import processor, write_result
from torch import nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.forest import Forest
from mivolo_lite.methods.interface import AgeSpan

REFERENCE = "linear + cross entropy"
STEPS = Forest.Config.refit_every
TARGETS = {name: 3.0 if name == "forest" else 1.5 for name in METHODS}
RESULTS = Path(__file__).parent / "results" / "heads.md"


def method_step(name, features, ages, device):
    """A function that does one training step of the method."""
    method_class, span = METHODS[name], AgeSpan()
    method = method_class(
        lambda outputs, bias=True: nn.Linear(features.shape[1], outputs, bias), span, method_class.Config()
    ).to(device)
    age = AgeRange.exact(ages)

    def step():
        output = method(features)
        method.loss(output, age).mean().backward()
        method.refit(output.detach(), age, torch.arange(len(output)))

    return step


def reference_step(features, ages, device):
    head = nn.Linear(features.shape[1], len(AgeSpan())).to(device)

    def step():
        F.cross_entropy(head(features), ages.long()).backward()

    return step


def seconds_per_step(step, device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / STEPS


def measure(batch, features, repeats, device):
    """Seconds and ratios by name, one for each repetition."""
    torch.manual_seed(0)
    x = torch.randn(batch, features, device=device, requires_grad=True)
    ages = torch.randint(0, len(AgeSpan()), (batch,), device=device).float()
    steps = {REFERENCE: reference_step(x, ages, device)}
    steps |= {name: method_step(name, x, ages, device) for name in METHODS}
    for step in steps.values():
        seconds_per_step(step, device)
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds_per_step(step, device))
    ratios = {name: [t / r for t, r in zip(times[name], times[REFERENCE], strict=True)] for name in steps}
    return times, ratios


def device_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} thread(s)"


def report(options, times, ratios, device):
    """The table as markdown."""
    rows = [
        f"| {name} | {1000 * statistics.median(times[name]):.2f} | {statistics.median(ratios[name]):.2f} | "
        f"{TARGETS.get(name, '')} |"
        for name in times
    ]
    head = [
        "# Time per training step of each method's head and loss",
        "",
        f"`python benchmarks/heads.py --batch {options.batch} --features {options.features} "
        f"--repeats {options.repeats} --device {options.device}`",
        f"on {device_name(device)}, torch {torch.__version__}, {len(AgeSpan())} ages.",
        f"Medians over {options.repeats} interleaved repetitions of {STEPS} steps.",
        "",
        "| method | ms/step | ratio | at most |",
        "| --- | ---: | ---: | ---: |",
    ]
    return "\n".join(head + rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    figures = measure(options.batch, options.features, options.repeats, device)
    write_result(RESULTS, report(options, *figures, device))


if __name__ == "__main__":
    main()
