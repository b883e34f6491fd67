"""How the rows of a run are put in order, cut into updates, and dealt out to the parts (micro-batches) of an update.

| cut | rows | an update | a part of it |
|---|---|---|---|
| `ShuffledRows` | of one length, shuffled in each epoch | equally many rows | its next rows |
| `RowsInOrder` | of one length, as they come, once | equally many rows up to one | its next rows |
| `ByLength` | sorted by length, ties at random | what fits a budget; updates shuffled | every n-th row |

A cut counts its updates from 0 and its rows as the plan does; epoch e's order is drawn from (seed, e) alone. The last
two orders asked for are kept (they are not pickled).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

Numbers = np.ndarray
"""int64 [n]."""


class Cut(Protocol):
    """What a `BatchPlan` asks of a cut."""

    n_updates: int
    epochs: float
    """Passes over the rows."""

    def rows(self, update: int) -> tuple[Numbers, Numbers]:
        """Epochs and rows of an update; -1: a row that fills up."""

    def part(self, update: int, part: int, parts: int) -> tuple[Numbers, Numbers]:
        """The share of `rows` that part number `part` of `parts` gets; may be empty."""

    def epochs_after(self, update: int) -> float:
        """Passes after that many updates."""


class _Orders:
    """The order of the rows in an epoch: `_draw`, kept for the last two epochs asked for."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Numbers, ...]] = {}

    def _draw(self, epoch: int) -> tuple[Numbers, ...]:
        raise NotImplementedError

    def order_of(self, epoch: int) -> tuple[Numbers, ...]:
        if epoch not in self._kept:
            if len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            self._kept[epoch] = self._draw(epoch)
        return self._kept[epoch]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": {}}


class ShuffledRows(_Orders):
    """Rows of one length, each once per epoch, equally many in every update; the last update is filled up.

    Args:
        n_rows: of an epoch.
        per_update: rows of an update; a multiple of the parts.
        epochs: passes over them.
        seed: numbers to draw the orders from, the epoch's comes last.
        rows: of all updates together, without those that fill up the last one; None: epochs x n_rows.
        whole_epochs: fill up the last update of every epoch, so that no update has rows of two.
    """

    def __init__(
        self,
        n_rows: int,
        per_update: int,
        *,
        epochs: float,
        seed: tuple[int, ...],
        rows: int | None = None,
        whole_epochs: bool = False,
    ):
        super().__init__()
        self.n_rows, self.per_update, self.epochs, self.seed = n_rows, per_update, epochs, seed
        # Places of an epoch: rows, and what fills up its last update.
        self._places = n_rows
        if whole_epochs:
            self._places = -(-n_rows // per_update) * per_update
            rows = updates_in(epochs, self._places // per_update) * per_update
        elif rows is None:
            rows = max(1, round(epochs * n_rows))
        self._counted = rows
        self.n_updates = -(-rows // per_update)

    def _draw(self, epoch: int) -> tuple[Numbers, ...]:
        order = np.full(self._places, -1)
        order[: self.n_rows] = np.random.default_rng([*self.seed, epoch]).permutation(self.n_rows)
        return (order,)

    def _rows_at(self, places: Numbers) -> tuple[Numbers, Numbers]:
        places = np.where(places < self._counted, places, -1)
        epochs, rows = places // self._places, np.full(len(places), -1)
        for epoch in np.unique(epochs[places >= 0]).tolist():
            here = epochs == epoch
            rows[here] = self.order_of(epoch)[0][places[here] - epoch * self._places]
        return epochs, rows

    def rows(self, update: int) -> tuple[Numbers, Numbers]:
        return self.part(update, 0, 1)

    def part(self, update: int, part: int, parts: int) -> tuple[Numbers, Numbers]:
        size = self.per_update // parts
        first = (update * parts + part) * size
        return self._rows_at(np.arange(first, first + size))

    def epochs_after(self, update: int) -> float:
        return min(update * self.per_update / self._places, self.epochs)

    def most(self, counts: Numbers, filler: int, parts: int) -> int:
        """The largest sum of counts [n_rows] over any part of the run, a row that fills up counting `filler`."""
        counts = np.append(counts, filler)  # the last: row -1
        in_order = np.full(self.n_updates * self.per_update, filler)
        for epoch in range(-(-self._counted // self._places)):
            first = epoch * self._places
            until = min(first + self._places, self._counted)
            in_order[first:until] = counts[self.order_of(epoch)[0][: until - first]]
        return int(in_order.reshape(-1, self.per_update // parts).sum(axis=1).max())


class RowsInOrder:
    """Rows of one length, once, as they come: for evaluation. All parts have equally many rows, up to one (padding).

    Args:
        n_rows: all of them.
        per_part: at most so many rows in a part.
        parts: of an update, the processes.
    """

    epochs: float = 1

    def __init__(self, n_rows: int, per_part: int, parts: int):
        self.n_rows, self.parts = n_rows, parts
        batches = -(-n_rows // per_part)
        self.n_updates = -(-batches // parts)
        self.per_part = -(-n_rows // (self.n_updates * parts))

    def rows(self, update: int) -> tuple[Numbers, Numbers]:
        shares = [self.part(update, part, self.parts) for part in range(self.parts)]
        epochs, rows = zip(*shares, strict=True)
        return np.concatenate(epochs), np.concatenate(rows)

    def part(self, update: int, part: int, parts: int) -> tuple[Numbers, Numbers]:
        item, items = update * parts + part, self.n_updates * parts
        first, until = item * self.n_rows // items, (item + 1) * self.n_rows // items
        rows = np.full(self.per_part, -1)
        rows[: until - first] = np.arange(first, until)
        return np.minimum(rows, 0), rows

    def epochs_after(self, update: int) -> float:
        return update / self.n_updates

    def most(self, counts: Numbers, filler: int, parts: int) -> int:
        """See `ShuffledRows.most`."""
        counts = np.append(counts, filler)
        items = range(self.n_updates * parts)
        return max(int(counts[self.part(*divmod(item, parts), parts)[1]].sum()) for item in items)


def ranks(generator: np.random.Generator, count: int) -> Numbers:
    """Each row's place among the rows of its length: drawn as such."""
    return generator.permutation(count)


def deck(generator: np.random.Generator, count: int) -> Numbers:
    """Each row's place among the rows of its length: where it lies in a shuffled deck of all."""
    return np.argsort(generator.permutation(count))


class ByLength(_Orders):
    """Rows sorted by height, then by width, cut wherever a budget is full; the updates are shuffled.

    An update has hardly any padding, and another neighbourhood in every epoch, as rows that agree in both lengths are
    in random order. The sorted lengths are those of every epoch, and so are the cuts: all epochs have equally many
    updates. A part has every n-th row of its update: all parts have the same lengths.

    Args:
        heights, widths: int64 [rows].
        tokens: at most so many positions in an update: rows x the largest height or width.
        cells: at most so many, rows x the largest height x the largest width; None: any number.
        epochs: passes over the rows.
        seed: of the orders; None: always as sorted, for evaluation.
        ties: how rows of one length are put in order, `ranks` or `deck`. (Two ways because the order of a run that was
            begun must stay.)

    Attributes:
        updates_per_epoch: of each epoch.
    """

    def __init__(
        self,
        heights: Numbers,
        widths: Numbers,
        *,
        tokens: int,
        cells: int | None = None,
        epochs: float,
        seed: int | None,
        ties: Callable[[np.random.Generator, int], Numbers] = ranks,
    ):
        super().__init__()
        self._heights, self._widths, self.epochs, self.seed, self._ties = heights, widths, epochs, seed, ties
        in_order = np.lexsort((widths, heights))
        self._borders = _borders(heights[in_order], widths[in_order], tokens, cells)
        self.updates_per_epoch = len(self._borders) - 1
        self.n_updates = updates_in(epochs, self.updates_per_epoch)

    def _draw(self, epoch: int) -> tuple[Numbers, ...]:
        """Rows, sorted; updates, shuffled."""
        count, updates = len(self._heights), np.arange(self.updates_per_epoch)
        ties = np.arange(count)
        if self.seed is not None:
            generator = np.random.default_rng([self.seed, epoch])
            ties, updates = self._ties(generator, count), generator.permutation(updates)
        return np.lexsort((ties, self._widths, self._heights)), updates

    def rows(self, update: int) -> tuple[Numbers, Numbers]:
        return self.part(update, 0, 1)

    def part(self, update: int, part: int, parts: int) -> tuple[Numbers, Numbers]:
        epoch, place = divmod(update, self.updates_per_epoch)
        order, updates = self.order_of(epoch)
        piece = updates[place]
        rows = order[self._borders[piece] : self._borders[piece + 1]][part::parts]
        return np.full(len(rows), epoch), rows

    def epochs_after(self, update: int) -> float:
        return update / self.updates_per_epoch

    def fullness(self, *lengths: Numbers) -> float:
        """Share of positions that are not padding, of texts of these lengths [rows] together."""
        order = np.lexsort((self._widths, self._heights))
        filled = sum(int(own.sum()) for own in lengths)
        positions = 0
        for first, until in zip(self._borders[:-1], self._borders[1:], strict=True):
            positions += sum(int(own[order[first:until]].max()) for own in lengths) * int(until - first)
        return filled / positions


def updates_in(epochs: float, updates_per_epoch: int) -> int:
    """Updates of so many epochs; the last one may be cut short, at least one is made."""
    # To the thousandth of an update: 1.1 x 10 is a little more than 11.
    return max(1, -(-round(epochs * updates_per_epoch * 1000) // 1000))


def _borders(heights: Numbers, widths: Numbers, tokens: int, cells: int | None) -> Numbers:
    """Where rows sorted by their lengths [n] are cut, so that no update exceeds a budget: int64 [updates + 1]."""
    borders, start, height, width = [0], 0, 0, 0
    for place, (tall, wide) in enumerate(zip(heights.tolist(), widths.tolist(), strict=True)):
        height, width, rows = max(height, tall), max(width, wide), place - start + 1
        if rows * max(height, width) > tokens or (cells is not None and rows * height * width > cells):
            borders.append(place)
            start, height, width = place, tall, wide
    return np.array([*borders, len(heights)])
