"""The division of the optimizer's batch into ranks and micro-batches."""

from dataclasses import dataclass

from mivolo_lite.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """The parts of the optimizer's batch: ``global_batch = micro_batch * world_size * accumulation``."""

    global_batch: int
    micro_batch: int
    world_size: int
    accumulation: int

    @classmethod
    def resolve(cls, global_batch: int, max_micro_batch: int | None, world_size: int) -> "BatchPlan":
        """The fewest equal micro-batches that fit.

        Args:
            global_batch: samples of one optimizer step, over all ranks.
            max_micro_batch: most samples of one forward pass on one rank; None for no limit.
            world_size: number of ranks.

        Raises:
            UserError: the global batch cannot be divided equally, or only into micro-batches of less than half the
                limit: a prime number would be trained one image at a time.
        """
        share, remainder = divmod(global_batch, world_size)
        if remainder or not share:
            nearest = max(1, round(global_batch / world_size)) * world_size
            raise UserError(
                f"optim.global_batch {global_batch} cannot be shared by {world_size} processes; use {nearest}, "
                "or start another number of processes"
            )
        limit = min(share, max_micro_batch or share)
        micro_batch = next(size for size in range(limit, 0, -1) if share % size == 0)
        if 2 * micro_batch < limit:
            nearest = max(1, round(share / limit)) * limit * world_size
            raise UserError(
                f"optim.global_batch {global_batch}: the share of each of {world_size} processes, {share}, has no "
                f"divisor near optim.micro_batch {limit}, only {micro_batch}; use optim.global_batch {nearest}, or "
                f"optim.micro_batch {micro_batch}"
            )
        return cls(global_batch, micro_batch, world_size, share // micro_batch)
