"""Estimates the photos of several requests as one batch."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from mivolo_lite.inference.people import Person

Predict = Callable[[Sequence[np.ndarray]], Sequence[list[Person]]]


class Batcher:
    """Collects the photos that arrive during a batch, and estimates them as the next one.

    Args:
        predict: returns the people of each photo; runs in a thread, one call at a time.
        max_batch: most photos in one call.
        on_batch: called with the number of photos of each call.
    """

    def __init__(self, predict: Predict, max_batch: int, on_batch: Callable[[int], None] = lambda photos: None) -> None:
        self.predict, self.max_batch, self.on_batch = predict, max_batch, on_batch
        self.queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future[list[Person]]]] = asyncio.Queue()

    async def __call__(self, image: np.ndarray) -> list[Person]:
        """The people of a photo (H, W, 3) uint8 RGB. Raises the error of its estimation."""
        answer = asyncio.get_running_loop().create_future()
        await self.queue.put((image, answer))
        return await answer

    async def run(self) -> None:
        """Estimate until cancelled."""
        while True:
            batch = [await self.queue.get()]
            while len(batch) < self.max_batch and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            self.on_batch(len(batch))
            results = await asyncio.to_thread(self._estimate, [image for image, _ in batch])
            for (_, answer), people in zip(batch, results, strict=True):
                if answer.done():  # its request was cancelled
                    continue
                if isinstance(people, Exception):
                    answer.set_exception(people)
                else:
                    answer.set_result(people)

    def _estimate(self, images: Sequence[np.ndarray]) -> Sequence[list[Person] | Exception]:
        """The people of each photo. If a batch fails, each is estimated alone, so that one's error affects no other."""
        try:
            return self.predict(images)
        except Exception as error:
            if len(images) == 1:
                return [error]
        return [answer for image in images for answer in self._estimate([image])]
