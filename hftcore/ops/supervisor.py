"""The supervisor: makes a venue, watches its workers, and takes all of it away again.

    lock 0 -> clear -> preflight -> regions, semaphores -> agents, loops -> fork -> ready
           -> EPOCH, listing -> venue.json -> watch -> drain -> stop -> clear -> lock 0

It is the parent of every worker and holds lock 0 for as long as the venue lives. Its order of
things is the venue's safety: nothing is made before the lock is held and everything was checked;
nothing is removed while a worker lives; venue.json appears last and goes first. Without a journal
any death of a worker ends the venue: the log names the worker, its roles and the reason.

It sleeps in poll(2) on the workers' pidfds and does what is rare: looks after clients that died
(GATEWAY_DOWN), and after the signal `stop`. SIGTERM, SIGINT and that signal end the venue in order:
clients may finish what is in their rings, for DRAIN_S at most.

Comes after everything else in `ops` that a venue consists of; `launch` starts one.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

from affinity.pin import pin
from hftcore.engine import reporter
from hftcore.errors import VenueRefused
from hftcore.limits import MAX_GATEWAYS
from hftcore.messages import GATEWAY_WORDS, INCARNATION, PUBLISHED, REPORTED, SETTLED
from hftcore.ops import preflight, remains
from hftcore.ops.config import VenueConfig
from hftcore.ops.logs import Log, made_log_directory, turn_output
from hftcore.ops.memory import VenueMemory
from hftcore.ops.placement import Placement, place
from hftcore.ops.running import Running, has_ended, reason_of, remedy_of
from hftcore.ops.venue_file import (
    VENUE_FILE,
    VenueRecord,
    WorkerRecord,
    directory_of,
    gateway_lock,
    write_record,
)
from hftcore.ops.venue_gateway import FIRST_EPOCH, VenueGateway
from hftcore.ops.venue_kernels import compile_ahead, load_feed
from hftcore.ops.worker import Worker, agents_of, live, worker_of
from ipc.clock import calibrate
from ipc.counters import Counters
from ipc.liveness import LOCK_FILE, ROLE, holder_alive, wait_on_pidfd
from ipc.signals import Signal

READY_S = 120.0
"""For all workers to be ready: the publisher may have kernels to compile."""
DRAIN_S = 2.0
STOP_S = 5.0
"""For workers to leave; then they are killed."""
_STEP_S = 0.05
ENDED, FAILED = 0, 1


class Supervisor:
    """One start of one venue.

    Parameters
    ----------
    config : VenueConfig
    base : Path, optional
        Holds the venues' directories.
    report : Callable
        Told the record once, when the venue is ready.
    echo : bool
        Write the log to the standard error too.
    """

    def __init__(
        self,
        config: VenueConfig,
        *,
        base: Path | None = None,
        report: Callable[[VenueRecord], None],
        echo: bool = False,
    ) -> None:
        self.config = config
        self._base = base
        self._report = report
        self._echo = echo
        self._stopping: list[str] = []
        self._running: list[Running] = []
        self._gone = [0] * MAX_GATEWAYS
        """The newest incarnation of each gateway that is known to be gone."""
        self._notes: list[str] = []
        self._stop: Signal | None = None
        """The semaphore, once it was made."""

    def run(self) -> int:
        """Start the venue, watch it, end it; return the exit status.

        Raises
        ------
        Refused
            When it can't be started; nothing is left then.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)
        placement = place(self.config)
        directory = directory_of(self.config.name, self._base)
        lock = remains.take_supervision(directory)
        try:
            preflight.check_workers(directory)
            # before memory is asked for: what a dead venue left takes as much as this one wants
            if left := remains.clear(directory):
                self._notes.append(f"removed what a dead venue left: {len(left)} files")
            preflight.check(placement, directory)
            turn_output(made_log_directory(self.config.name))
            log = Log.begin(self.config.name, echo=self._echo)
        except BaseException:
            remains.step_back(directory, lock)
            raise
        try:
            return self._live(placement, directory, log)
        except BaseException as error:
            log.failure("venue failed", error)
            raise
        finally:
            self._end_workers(log)
            remains.remove_all(directory, lock)
            log.write("cleared away")
            log.close()

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stopping.append(signal.Signals(number).name)

    # -- beginning ------------------------------------------------------------------------------

    def _live(self, placement: Placement, directory: Path, log: Log) -> int:
        config, start_id = placement.config, time.time_ns()
        began = time.monotonic()
        log.write("starting", venue=config.name, start_id=start_id, notes=self._notes)
        names = remains.signal_venue(directory)
        with (
            VenueMemory.create(directory, config, len(placement.workers), start_id) as memory,
            Signal.create(names, remains.READY) as ready,
            Signal.create(names, remains.STOP) as stop,
        ):
            self._stop = stop
            clock = calibrate()
            compile_ahead(placement, log, self._check)
            agents = agents_of(memory)
            workers = []
            for plan in placement.workers:
                self._check()
                workers.append(worker_of(plan, memory, clock.ns_per_tick, agents))
            load_feed()
            self._check()
            self._fork(workers, ready, log)
            # the publisher's cpu is the one for what doesn't spin
            pin(next(plan.cpus for plan in placement.workers if "publisher" in plan.roles))
            self._wait_until_ready(ready)
            gateway = VenueGateway(memory, self._check)
            gateway.begin_epoch(FIRST_EPOCH, start_id)
            gateway.list_instruments(config.instruments)
            record = self._record(placement, directory, start_id, log)
            write_record(directory, record)
            log.write("ready", seconds=round(time.monotonic() - began, 2), notes=self._notes)
            self._report(record)
            status = self._watch(memory, gateway, log)
            (directory / VENUE_FILE).unlink(missing_ok=True)
            if status == ENDED:
                self._drain(memory, log)
            self._summarise(memory, log)
            return status

    def _fork(self, workers: list[Worker], ready: Signal, log: Log) -> None:
        """Start every worker; signals wait until a child can answer them itself."""
        parent = os.getpid()
        gc.collect()
        gc.freeze()  # a collection in a child would copy every page that it looks at
        held = {signal.SIGTERM, signal.SIGINT}
        for worker in workers:
            signal.pthread_sigmask(signal.SIG_BLOCK, held)
            try:
                pid = os.fork()
                if pid == 0:
                    live(worker, parent=parent, ready=ready, log=log)
                self._running.append(Running(worker, pid, os.pidfd_open(pid)))
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, held)

    def _wait_until_ready(self, ready: Signal) -> None:
        deadline = time.monotonic() + READY_S
        missing = len(self._running)
        while missing:
            self._check()
            missing -= ready.wait(_STEP_S)
            if time.monotonic() > deadline:
                raise VenueRefused(
                    "the workers are not ready",
                    expected=f"{len(self._running)} workers within {READY_S:g} s",
                    found=f"{missing} missing",
                    remedy="see `hft logs`; `hft warm` compiles ahead of a start",
                )

    def _check(self) -> None:
        """Raise when the start is in vain: a worker died, or somebody wants it stopped."""
        if self._is_to_stop():
            raise VenueRefused(
                "the start was stopped", expected="to become ready", found=self._stopping[0]
            )
        for running in self._running:
            if has_ended(running):
                raise VenueRefused(
                    "a worker died while the venue was starting",
                    expected="all workers ready",
                    found=f"{running.worker.plan.name}: {reason_of(running)}",
                    where=str(running.worker.memory.directory),
                    remedy=remedy_of(running) or "`hft logs` has what it said",
                )

    def _is_to_stop(self) -> bool:
        """Return whether a signal of either kind asked for the end, at any time so far."""
        if self._stop is not None and self._stop.wait(0):
            self._stopping.append("the signal stop")
        return bool(self._stopping)

    def _record(
        self, placement: Placement, directory: Path, start_id: int, log: Log
    ) -> VenueRecord:
        return VenueRecord(
            config=placement.config,
            start_id=start_id,
            epoch=FIRST_EPOCH,
            pid=os.getpid(),
            workers=tuple(
                WorkerRecord(
                    plan.name,
                    plan.number,
                    running.pid,
                    plan.roles,
                    plan.cpus,
                    plan.strategy.name.lower(),
                )
                for running in self._running
                for plan in (running.worker.plan,)
            ),
            endpoints=preflight.endpoints_of(placement.config, directory),
            ready_ns=time.time_ns(),
            log=str(log.path),
            notes=tuple(self._notes),
        )

    # -- watching -------------------------------------------------------------------------------

    def _watch(self, memory: VenueMemory, gateway: VenueGateway, log: Log) -> int:
        """Sleep until a worker dies (FAILED) or somebody wants the end (ENDED)."""
        poller = select.poll()
        for running in self._running:
            poller.register(running.pidfd, select.POLLIN)
        cut_before = 0
        counted = memory.counters("reporter")
        while True:
            ended = {descriptor for descriptor, _ in poller.poll(_STEP_S * 1000)}
            for running in self._running:
                if running.pidfd in ended and has_ended(running):
                    self._say_died(running, log)
                    return FAILED
            if self._is_to_stop():
                log.write("stopping", why=self._stopping[0])
                return ENDED
            self._watch_clients(memory, gateway, log)
            cut = _counted(counted, reporter.CUTS)
            if cut > cut_before:
                log.write("client cut off", count=cut - cut_before, why="its report ring was full")
                cut_before = cut

    def _watch_clients(self, memory: VenueMemory, gateway: VenueGateway, log: Log) -> None:
        """Tell the venue of gateways whose process is gone."""
        cells = memory.gateways()
        for number in range(1, memory.config.gateways):
            # a client takes the lock, then counts its incarnation up: in this order of looking, a
            # free lock means that this incarnation is gone, however short it was
            incarnation = int(cells[number * GATEWAY_WORDS + INCARNATION])
            if incarnation == self._gone[number] or holder_alive(
                memory.directory, gateway_lock(number)
            ):
                continue
            # who leaves in order takes its pid out of the lock file
            pid = _last_holder(memory.directory, gateway_lock(number))
            if not gateway.gateway_down(number, incarnation, graceful=pid == 0):
                return  # no room now: the same is found at the next look
            self._gone[number] = incarnation
            who = {"was": pid} if pid else {}
            said = "client died" if pid else "client left"
            log.write(said, gateway=number, incarnation=incarnation, **who)
        gateway.forget_answers()

    def _say_died(self, running: Running, log: Log) -> None:
        plan = running.worker.plan
        log.write(
            "worker died",
            worker=plan.name,
            died=running.pid,
            roles=plan.roles,
            reason=reason_of(running),
            where=str(running.worker.memory.directory),
            remedy=remedy_of(running)
            or "without a journal the venue can't go on: hft up starts a new one",
        )

    # -- ending ---------------------------------------------------------------------------------

    def _drain(self, memory: VenueMemory, log: Log) -> None:
        """Let what was sent be matched, reported and published, for a while."""
        deadline = time.monotonic() + DRAIN_S
        while left := undrained(memory):
            if time.monotonic() > deadline or any(map(has_ended, self._running)):
                log.write("not drained", left=left)
                return
            time.sleep(_STEP_S / 10)

    def _end_workers(self, log: Log) -> None:
        """Ask every worker to leave, kill who does not, reap all."""
        for running in self._running:
            if not has_ended(running):
                signal.pidfd_send_signal(running.pidfd, signal.SIGTERM)
                signal.pidfd_send_signal(running.pidfd, signal.SIGCONT)
        deadline = time.monotonic() + STOP_S
        for running in self._running:
            if not wait_on_pidfd(running.pidfd, max(deadline - time.monotonic(), 0)):
                log.write("worker killed", worker=running.worker.plan.name, why="did not leave")
                signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
                wait_on_pidfd(running.pidfd, STOP_S)
            has_ended(running)
            os.close(running.pidfd)
        self._running.clear()

    def _summarise(self, memory: VenueMemory, log: Log) -> None:
        positions = memory.positions()
        counted = {
            role: {name: value for name, value in memory.counters(role) if value}
            for role in ("sequencer", "reporter", "publisher")
        }
        log.write("summary", settled=int(positions[SETTLED]), counters=counted)


def undrained(memory: VenueMemory) -> list[str]:
    """Return what is not finished: ingress rings, and who has not come to the newest command.

    A command is finished when it is settled, reported and published, so only these are asked.
    """
    gateways = range(memory.config.gateways)
    rings = {f"ingress-{g}": memory.ingress(g) for g in gateways}
    left = [name for name, ring in rings.items() if ring.cursor(0) < ring.position]
    newest = int(memory.state("sequencer")["next_sequence"][0]) - 1
    positions = memory.positions()
    for name, word in (("settled", SETTLED), ("reported", REPORTED), ("published", PUBLISHED)):
        if (reached := int(positions[word])) < newest:
            left.append(f"{name} {reached} of {newest}")
    return left


def _counted(counters: Counters, number: int) -> int:
    return int(counters.words[number * 8])


def _last_holder(directory: Path, role: int) -> int:
    """Return the pid that stands in a lock's row, whether or not it lives."""
    rows = np.fromfile(directory / LOCK_FILE, np.uint8)
    row = rows[role * ROLE.itemsize : (role + 1) * ROLE.itemsize]
    return int(row.view(ROLE)[0]["pid"]) if row.size == ROLE.itemsize else 0


__all__ = ["Supervisor", "undrained"]
