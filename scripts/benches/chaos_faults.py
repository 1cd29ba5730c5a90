"""Inflicts a schedule on a fleet, and starts again what was killed."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable

import psutil

from scripts.benches.chaos_fleet import ChaosFleet
from scripts.benches.chaos_processes import Member, reap_orphans
from scripts.benches.chaos_schedule import Fault, Kind, Role
from scripts.benches.harness import note

TWO_DAYS_S = 2 * 86_400.0
_TICK_S = 0.05
_SURPRISE_RESTART_S = 2.0
"""What ended by itself is started again after this, as by a service manager."""
_JOB_POLL_S = 0.5
"""How often to look for a job that is to be hit."""
_DELAYS_S = (0.2, 2.0)


class Tormentor:
    """Carries out faults at their time. One thread only."""

    def __init__(self, fleet: ChaosFleet) -> None:
        self.fleet = fleet
        self.inflicted: Counter[str] = Counter()
        self._begun = time.monotonic()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._down: dict[str, Member] = {}
        self._stopped: dict[int, psutil.Process] = {}

    def torment(self, faults: Iterable[Fault], until_s: float) -> None:
        """Inflict faults, each at its time, for so many seconds; then bring back what is missing.

        Raises:
            OSError: a process could not be started.
        """
        self._begun = time.monotonic()
        for fault in faults:
            self._at(fault.at_s, lambda fault=fault: self._inflict(fault))
        while self._now() < until_s:
            self.look_after()
            time.sleep(_TICK_S)
        # What is still to end ends now.
        self._later.clear()
        self._end_stops()
        self.fleet.make_peace()
        for member in list(self._down.values()):
            self._start(member)

    def look_after(self) -> None:
        """Do what is due; start again who ended by himself; bury the dead."""
        while self._later and self._later[0][0] <= self._now():
            heapq.heappop(self._later)[2]()
        for member in self.fleet.members:
            if member.name not in self._down and member.ended():
                note(f"chaos: {member.surprises[-1]}")
                self._restart_in(member, _SURPRISE_RESTART_S)
        reap_orphans(member.pid for member in self.fleet.members)

    def _inflict(self, fault: Fault) -> None:
        act: dict[Kind, Callable[[Fault], bool]] = {
            Kind.KILL: self._kill,
            Kind.STOP: self._stop,
            Kind.CUT: self._cut,
            Kind.REFUSE: self._refuse,
            Kind.SILENCE: self._silence,
            Kind.DELAY: self._delay,
            Kind.FULL_DISK: self._fill_disk,
            Kind.CLOCK: self._shift_clock,
        }
        if act[fault.kind](fault):
            self.inflicted[fault.kind] += 1
            if fault.kind in {Kind.KILL, Kind.STOP}:
                self.inflicted[f"{fault.kind}_{fault.role}"] += 1
        elif fault.role is Role.JOB:
            # Jobs are rare, and must not be spared for that.
            self._in(_JOB_POLL_S, lambda: self._inflict(fault))

    def _kill(self, fault: Fault) -> bool:
        if fault.role in {Role.COORDINATOR, Role.AGENT}:
            member = self._member(fault)
            if member is None:
                return False
            member.kill()
            self._restart_in(member, fault.seconds)
            return True
        return self._signal(fault, signal.SIGKILL) is not None

    def _stop(self, fault: Fault) -> bool:
        stopped = self._signal(fault, signal.SIGSTOP)
        if stopped is None:
            return False
        self._stopped[stopped.pid] = stopped
        self._in(fault.seconds, lambda: self._continue(stopped))
        return True

    def _cut(self, fault: Fault) -> bool:
        return self.fleet.proxies[self._agent(fault)].cut() > 0

    def _refuse(self, fault: Fault) -> bool:
        proxy = self.fleet.proxies[self._agent(fault)]
        proxy.refuse(on=True)
        self._in(fault.seconds, lambda: proxy.refuse(on=False))
        return True

    def _silence(self, fault: Fault) -> bool:
        proxy = self.fleet.proxies[self._agent(fault)]
        proxy.silence(on=True)
        self._in(fault.seconds, lambda: proxy.silence(on=False))
        return True

    def _delay(self, fault: Fault) -> bool:
        proxy = self.fleet.proxies[self._agent(fault)]
        least, most = _DELAYS_S
        proxy.delay(least + fault.pick * (most - least))
        self._in(fault.seconds, lambda: proxy.delay(0.0))
        return True

    def _fill_disk(self, fault: Fault) -> bool:
        name = "coordinator" if fault.role is Role.COORDINATOR else self._agent(fault)
        disk = self.fleet.disks.get(name)
        if disk is None:
            return False
        disk.fill()
        self._in(fault.seconds, disk.empty)
        return True

    def _shift_clock(self, fault: Fault) -> bool:
        member = self._member(fault)
        if member is None:
            return False
        others = [o for o in (0.0, TWO_DAYS_S, -TWO_DAYS_S) if o != member.clock_offset_s]
        member.kill()
        member.clock_offset_s = others[int(fault.pick * 1000) % 2]
        self._restart_in(member, fault.seconds)
        return True

    def _member(self, fault: Fault) -> Member | None:
        """Return the coordinator or an agent; ``None`` while it is down anyway."""
        coordinates = fault.role is Role.COORDINATOR
        fleet = self.fleet
        member = fleet.coordinator if coordinates else fleet.agents[self._agent(fault)]
        return None if member.name in self._down else member

    def _agent(self, fault: Fault) -> str:
        names = list(self.fleet.agents)
        return names[int(fault.pick * len(names))]

    def _signal(self, fault: Fault, number: signal.Signals) -> psutil.Process | None:
        found = self.fleet.play(fault.role)
        if not found:
            return None
        try:
            process = psutil.Process(found[int(fault.pick * len(found))])
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return None
        return process

    def _continue(self, process: psutil.Process) -> None:
        self._stopped.pop(process.pid, None)
        try:
            process.send_signal(signal.SIGCONT)
        except psutil.NoSuchProcess:
            return

    def _end_stops(self) -> None:
        for process in list(self._stopped.values()):
            self._continue(process)

    def _restart_in(self, member: Member, seconds: float) -> None:
        self._down[member.name] = member
        self._in(seconds, lambda: self._start(member))

    def _start(self, member: Member) -> None:
        del self._down[member.name]
        member.start()

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        self._at(self._now() + seconds, action)

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (at_s, next(self._numbers), action))

    def _now(self) -> float:
        return time.monotonic() - self._begun
