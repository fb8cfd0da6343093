"""Class-balanced batches without state: (seed, step) decide the global batch, each rank takes its share of the rows.

The same rows are drawn whatever the number of ranks, so P ranks take the very step of one. Classes come in shuffled
rounds, so that each is met equally often; classes of a batch are distinct, and so are the rows of a class.

Shape letters: N rows, B rows of a batch, C classes.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.comm import collectives
from distspectral.errors import TooFewClassesError
from distspectral.objectives.batches import LabeledBatch
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.sampling import share


class ClassSampler:
    """Draws some classes and some rows of each; a class with fewer rows gives all it has.

    Holds eight bytes per row.

    Args:
        vectors: all N rows.
        classes: (N,) class of each row in [0, C); negative: never drawn.
        batch_size: rows of a step, all ranks together.
        rows_per_class: rows of each class in a step.
        seed: seed of the run.

    Raises:
        TooFewClassesError: fewer than two classes, or a batch too small for two.

    Communication: none.
    """

    def __init__(
        self, vectors: Vectors, classes: NDArray[np.int64], *, batch_size: int, rows_per_class: int, seed: int
    ) -> None:
        self.vectors, self.rows_per_class, self.seed = vectors, rows_per_class, seed
        self.rank, self.world_size = collectives.rank(), collectives.world_size()
        order = np.argsort(classes, kind="stable")
        self.rows = order[np.searchsorted(classes[order], 0) :]
        sizes = np.bincount(classes[self.rows])
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.classes = np.flatnonzero(sizes)
        self.classes_per_batch = min(batch_size // rows_per_class, len(self.classes))
        if self.classes_per_batch < 2:
            raise TooFewClassesError(
                f"a batch would hold {self.classes_per_batch} class ({len(self.classes)} classes to learn from, "
                f"train.batch_size = {batch_size}, dscl.rows_per_class = {rows_per_class}), and at least 2 are needed "
                "to tell apart; check data.label_column and dscl.train_classes, or make batches larger",
                ["train.batch_size", "dscl.rows_per_class", "data.label_column", "dscl.train_classes"],
            )
        self._round = functools.lru_cache(maxsize=1)(self._shuffled)

    @property
    def smallest_batch(self) -> int:
        """Rows of the smallest batch that can be drawn, all ranks together."""
        sizes = np.minimum(np.diff(self.starts)[self.classes], self.rows_per_class)
        return int(np.sort(sizes)[: self.classes_per_batch].sum())

    def batch(self, step: int) -> LabeledBatch:
        """Return this rank's rows of ``step``, ascending within each class."""
        rows, classes = self.global_batch(step)
        first, last = share(len(rows), self.rank, self.world_size)
        vectors = torch.from_numpy(self.vectors.gather(rows[first:last]))
        return LabeledBatch(vectors, torch.from_numpy(classes[first:last]), self.classes_per_batch)

    def global_batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows (B,) of ``step`` on all ranks together and their classes (B,), numbered within the batch."""
        batches_per_round = len(self.classes) // self.classes_per_batch
        number, position = divmod(step, batches_per_round)
        first = position * self.classes_per_batch
        chosen = self._round(number)[first : first + self.classes_per_batch]
        generator = np.random.default_rng((self.seed, step))
        parts = [self._rows_of(one, generator) for one in chosen]
        sizes = [len(part) for part in parts]
        return np.concatenate(parts), np.repeat(np.arange(len(parts)), sizes)

    def _rows_of(self, one: int, generator: np.random.Generator) -> NDArray[np.int64]:
        start, stop = self.starts[one], self.starts[one + 1]
        n = min(self.rows_per_class, stop - start)
        chosen = start + np.sort(generator.choice(stop - start, n, replace=False, shuffle=False))
        rows: NDArray[np.int64] = self.rows[chosen]
        return rows

    def _shuffled(self, number: int) -> NDArray[np.int64]:
        """Return all classes in the order of one round; what does not fill a batch waits for another round."""
        return np.random.default_rng((self.seed, number, len(self.classes))).permutation(self.classes)
