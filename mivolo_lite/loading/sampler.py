"""Assigns the samples of each step to the ranks."""

from collections.abc import Iterator
from itertools import accumulate, chain

import numpy as np

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.loading.mixed import MixedOrder, in_proportion
from mivolo_lite.loading.order import GlobalOrder, Span, WindowSlice
from mivolo_lite.shards.sample_ref import SampleRef


class TrainSampler:
    """The micro-batches of one rank from ``samples_seen`` on. All batches are full, and all ranks have equally many.

    Step ``k`` uses the positions from ``samples_seen + k * global_batch`` on, so its samples do not depend on the world
    size. Within a window, the ranks share the samples of a step by sample number. A rank's samples are then in few
    blocks, the same ones step after step; shared by position, every node would fetch every block of every window
    (benchmarks/results/scale.md). Each of several data sets is shared in this way. Packing shuffles a data set, so a
    few blocks are as varied as many. Shards that somebody sorted are not shuffled: the gradient is the same, but batch
    norm sees less variety unless it is synchronised.
    """

    def __init__(self, order: GlobalOrder | MixedOrder, plan: BatchPlan, rank: int, samples_seen: int, steps: int):
        self.order, self.plan, self.rank, self.samples_seen, self.steps = order, plan, rank, samples_seen, steps
        self.batch_size = plan.micro_batch

    def __len__(self) -> int:
        return self.steps * self.plan.accumulation

    def __iter__(self) -> Iterator[list[SampleRef]]:
        for step in range(self.steps):
            refs = self._share(self.samples_seen + step * self.plan.global_batch)
            for batch in range(self.plan.accumulation):
                yield refs[batch * self.batch_size :][: self.batch_size]

    def _share(self, first: int) -> list[SampleRef]:
        """This rank's samples of the step that begins at position ``first``, in the order of the stream."""
        plan = self.plan
        spans = self.order.spans(first, plan.global_batch)
        lengths = [len(span.places) for span in spans]
        begins, ends = (
            in_proportion(ranks * plan.global_batch // plan.world_size, lengths) for ranks in (self.rank, self.rank + 1)
        )
        placed = chain.from_iterable(map(self._share_of_span, spans, begins, ends))
        return [ref for _, ref in sorted(placed)]

    def _share_of_span(self, span: Span, begin: int, end: int) -> Iterator[tuple[int, SampleRef]]:
        """Places and samples of the share from ``begin`` to ``end`` of a span."""
        order, passed = span.order, 0
        slices = list(order.slices(span.first, len(span.places)))
        firsts, lasts = (_dealt_by_window(order, slices, dealt) for dealt in (begin, end))
        for window_slice, first, last in zip(slices, firsts, lasts, strict=True):
            if first < last:
                samples = order.samples_of(window_slice)
                chosen = np.sort(np.argsort(samples)[first:last])
                places, chosen_samples = span.places[passed + chosen], span.start + samples[chosen]
                refs = (SampleRef(window_slice.epoch, sample) for sample in chosen_samples.tolist())
                yield from zip(places.tolist(), refs, strict=True)
            passed += window_slice.end - window_slice.begin


def _dealt_by_window(order: GlobalOrder, slices: list[WindowSlice], dealt: int) -> list[int]:
    """How many of the first ``dealt`` samples of one data set in a step are of each window."""
    lengths = [window_slice.end - window_slice.begin for window_slice in slices]
    if len(slices) == 2 and sum(lengths) <= order.window_samples:
        # A rank has a share of both windows. Otherwise the blocks of a window would change ranks after its first step.
        first = dealt * lengths[0] // sum(lengths)
        return [first, dealt - first]
    ends = accumulate(lengths)
    return [min(max(dealt - end + length, 0), length) for end, length in zip(ends, lengths, strict=True)]


class EvalSampler:
    """Every sample once, in the order of the index, with the same number of batches on every rank.

    ZeRO-3 and FSDP gather weights inside the forward pass, so all ranks must run equally many. The last batches are
    padded with the first sample, marked as not valid. No batch is larger than a rank's share of the samples.
    """

    def __init__(self, samples: int, batch_size: int, rank: int = 0, world_size: int = 1):
        self.samples, self.rank, self.world_size = samples, rank, world_size
        self.batch_size = min(batch_size, -(-samples // world_size))

    def __len__(self) -> int:
        return -(-self.samples // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[SampleRef]]:
        for batch in range(len(self)):
            first = (batch * self.world_size + self.rank) * self.batch_size
            samples = range(first, first + self.batch_size)
            yield [
                SampleRef(0, sample) if sample < self.samples else SampleRef(0, 0, valid=False) for sample in samples
            ]
