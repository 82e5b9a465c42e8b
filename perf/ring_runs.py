"""One repeat of each thing that the ring suite measures: which process runs which kernel where.

Each repeat forks its processes, pins them, starts them together and takes their answers. The rings
stay over the repeats of a case: positions go on, and slots are overwritten thousands of times.

A stream runs in slices of 0.1 ms (near) to 1 ms (far), each timed by itself. A slice in which the
scheduler took a core away from the writer or a reader (its count of involuntary switches says so)
measures the neighbour; it is counted, checked for content, and left out of the rates. With two
compilers running beside the bench the plain rate fell to a third, that of calm slices stayed.

With two cpus the second reader of a ring is fused with the first into one process, as two roles
composed in one worker; with three or more it has a cpu of its own.

Comes between the kernels (`ring_kernels`, `index_ring`) and the cases (`ring_suite`).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ipc.ring import Ring, words_for
from perf import floor, index_ring, ring_kernels
from perf.children import Task, run_together, shared_words
from perf.floor import CacheLine, ns_per_tick
from perf.harness import Options, Repeats, repeat_by_regime

Slice = Callable[[int], tuple[int, ...]]
"""Does the work of slice number n; returns ticks (a writer), or wrong and further counts."""
Worker = tuple[str, Slice]

SLICE_WORDS = 6
"""What a worker leaves of a slice: interruptions, then its answer."""
T = TypeVar("T")


@dataclass(frozen=True)
class Parameters:
    """How much is measured; the figures of the smoke run mean nothing.

    Attributes
    ----------
    capacity : int
        Slots. A ring runs through all its slots however full it is, so a small one stays in the
        caches near the cores (perf/LEDGER.md has the sweep).
    trips : int
        Round trips a repeat, and `floor_trips` of the bare cache line between repeats.
    messages, slices : int
        Messages a slice, slices a repeat.
    repeats, budget_s : int, float
        Repeats a case, and the seconds after which it stops short of them.
    """

    capacity: int
    trips: int
    messages: int
    slices: int
    repeats: int
    floor_trips: int
    budget_s: float


FULL = Parameters(2048, 100_000, 50_000, 80, 15, 20_000, 2.0)
SMOKE = Parameters(64, 200, 1_000, 2, 2, 200, 60.0)


@dataclass(frozen=True)
class Trips:
    """One repeat of a ping-pong: every round trip in ticks, and how many echoes were wrong."""

    ticks: NDArray[np.int64]
    wrong: int

    @property
    def p50_ns(self) -> float:
        """The median round trip."""
        return float(np.median(self.ticks)) * ns_per_tick()


@dataclass(frozen=True)
class Stream:
    """One repeat of a stream.

    Attributes
    ----------
    rates : tuple of float
        Messages a second, a slice each; `disturbed` are those of slices that were interrupted.
    wrong : int
        Messages whose content was not what had been written.
    received, lost : int
        What a tailing reader had of the stream.
    """

    rates: tuple[float, ...]
    disturbed: tuple[float, ...]
    wrong: int
    received: int
    lost: int


class RingRuns:
    """The cpus, the parameters and the cache line that all runs of one suite share."""

    def __init__(self, options: Options) -> None:
        self.parameters = SMOKE if options.smoke else FULL
        self.corrupt = options.corrupt
        self.cpus = options.pinned(3)
        self.line = CacheLine(self.cpus[0], self.cpus[1], self.parameters.floor_trips)
        self.samples = shared_words(self.parameters.trips)

    @property
    def fused(self) -> bool:
        """Whether a second reader has no cpu of its own."""
        return len(self.cpus) < 3

    @property
    def messages_a_repeat(self) -> int:
        """Messages that one repeat of a stream writes."""
        return self.parameters.messages * self.parameters.slices

    def repeat(self, measure: Callable[[], T]) -> Repeats[T]:
        """Repeat a measurement between measurements of the cache line."""
        amount = self.parameters
        return repeat_by_regime(measure, self.line.rtt_ns, amount.repeats, amount.budget_s)

    def ring(self, readers: int = 1) -> Ring:
        """Make an empty shared ring with gating readers 0 to `readers` - 1."""
        capacity = self.parameters.capacity
        ring = Ring.create(shared_words(words_for(capacity)), capacity)
        for reader in range(readers):
            ring.add_gating_reader(reader)
        return ring

    def round_trips(self, there: Ring, back: Ring) -> Trips:
        """Ping-pong over two rings."""
        ways = (there.cells, there.words), (back.cells, back.words)
        spoiled = there.position if self.corrupt else -1
        return self._round_trips(
            lambda: ring_kernels.ping(*ways, self.samples),
            lambda: ring_kernels.pong(*ways, self.parameters.trips, spoiled),
            (there.words, back.words),
        )

    def round_trips_indexed(self, there: Ring, back: Ring) -> Trips:
        """Ping-pong over two index rings."""
        ways = (there.cells, there.words), (back.cells, back.words)
        return self._round_trips(
            lambda: index_ring.ping_indexed(*ways, self.samples),
            lambda: index_ring.pong_indexed(*ways, self.parameters.trips),
            (there.words, back.words),
        )

    def _round_trips(
        self,
        ping: Callable[[], int],
        pong: Callable[[], int],
        touched: tuple[NDArray[np.int64], ...],
    ) -> Trips:
        (wrong,), _ = run_together(
            [
                Task("ping", self.cpus[0], lambda: (ping(),), (*touched, self.samples)),
                Task("pong", self.cpus[1], lambda: (pong(),), touched),
            ]
        )
        return Trips(self.samples.copy(), wrong)

    def stream(self, ring: Ring, batch: int) -> Stream:
        """Send messages to one gating reader, `batch` at a time."""
        return self._stream(ring, self._writer(ring, batch), [self._reader(ring, 0)])

    def stream_indexed(self, ring: Ring, batch: int) -> Stream:
        """Send messages over an index ring, the cursor published once a `batch`."""
        cells, words, count = ring.cells, ring.words, self.parameters.messages

        def write(number: int) -> tuple[int, ...]:
            return (index_ring.write_indexed(cells, words, count, batch),)

        def read(number: int) -> tuple[int, ...]:
            return (index_ring.read_indexed(cells, words, 0, count),)

        return self._stream(ring, ("index writer", write), [("index reader", read)])

    def two_readers(self, ring: Ring, batch: int) -> Stream:
        """Send messages to two gating readers, each of which reads and checks all."""
        cells, words, count = ring.cells, ring.words, self.parameters.messages

        def read(number: int) -> tuple[int, ...]:
            return (ring_kernels.read_two(cells, words, count),)

        apart = [self._reader(ring, 0), self._reader(ring, 1)]
        readers = [("two readers, fused", read)] if self.fused else apart
        return self._stream(ring, self._writer(ring, batch), readers)

    def tailing(self, ring: Ring, batch: int) -> Stream:
        """Send messages to a gating reader and a tailing one, which may lose some."""
        cells, words, count = ring.cells, ring.words, self.parameters.messages
        began, copy = ring.position, ring_kernels.new_copy()

        def read(number: int) -> tuple[int, ...]:
            return ring_kernels.read_and_tail(cells, words, count, copy)

        def tail(number: int) -> tuple[int, ...]:
            return ring_kernels.tail(cells, words, began + number * count, count, copy)

        apart = [self._reader(ring, 0), ("tailing reader", tail)]
        readers = [("gating and tailing reader, fused", read)] if self.fused else apart
        return self._stream(ring, self._writer(ring, batch), readers)

    def _writer(self, ring: Ring, batch: int) -> Worker:
        cells, words = ring.cells, ring.words

        def write(number: int) -> tuple[int, ...]:
            count = self.parameters.messages
            if self.corrupt and number == 0:
                count -= ring_kernels.write_spoiled(cells, words)
            if batch == 1:
                return (ring_kernels.write_each(cells, words, count),)
            return (ring_kernels.write_batches(cells, words, count, batch),)

        return "writer", write

    def _reader(self, ring: Ring, reader: int) -> Worker:
        cells, words, count = ring.cells, ring.words, self.parameters.messages

        def read(number: int) -> tuple[int, ...]:
            return (ring_kernels.read_checked(cells, words, reader, count),)

        return f"reader {reader}", read

    def _stream(self, ring: Ring, writer: Worker, readers: Sequence[Worker]) -> Stream:
        """Run a writer on the first cpu and readers on the others; add up what they answered."""
        slices = self.parameters.slices
        workers = [writer, *readers]
        kept = shared_words(len(workers) * slices * SLICE_WORDS)
        answers = kept.reshape(len(workers), slices, SLICE_WORDS)
        run_together(
            [
                Task(name, cpu, partial(_in_slices, work, answer), (ring.words, kept))
                for (name, work), cpu, answer in zip(workers, self.cpus, answers, strict=False)
            ]
        )
        rates = self.parameters.messages * 1e9 / (answers[0, :, 1] * ns_per_tick())
        calm = answers[:, :, 0].sum(axis=0) == 0
        wrong, received, lost, wrong_copies = answers[1:, :, 1:5].sum(axis=(0, 1)).tolist()
        return Stream(
            tuple(rates[calm].tolist()),
            tuple(rates[~calm].tolist()),
            wrong + wrong_copies,
            received,
            lost,
        )


def _in_slices(work: Slice, answer: NDArray[np.int64]) -> tuple[int, ...]:
    """Work slice by slice; note beside each answer how often the scheduler interrupted it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    for number in range(answer.shape[0]):
        words = work(number)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        answer[number, 0] = after - before
        answer[number, 1 : 1 + len(words)] = words
        # no gap between two counts: an interruption between slices delays the peer's next one
        before = after
    return ()


def warm() -> None:
    """Compile every kernel of the suite in this process, on a ring in private memory."""
    floor.warm()
    ring = Ring.local(64)
    cells, words = ring.cells, ring.words
    way = (cells, words)
    nothing, copy = shared_words(0), ring_kernels.new_copy()
    ring_kernels.ping(way, way, nothing)
    ring_kernels.pong(way, way, 0, -1)
    ring_kernels.write_each(cells, words, 0)
    ring_kernels.write_batches(cells, words, 0, 16)
    ring_kernels.write_spoiled(cells, words)
    ring_kernels.read_checked(cells, words, 0, 0)
    ring_kernels.read_two(cells, words, 0)
    ring_kernels.read_and_tail(cells, words, 0, copy)
    ring_kernels.tail(cells, words, 0, 0, copy)
    index_ring.ping_indexed(way, way, nothing)
    index_ring.pong_indexed(way, way, 0)
    index_ring.write_indexed(cells, words, 0, 1)
    index_ring.read_indexed(cells, words, 0, 0)
