"""Processes of one run look after each other: where one ends, all end, and say which one it was, where, and why.

A process that is killed takes no leave: collectives that wait for it fail or, on a GPU, hang. So each process says in the
store of the process group, from a thread of its own, that it lives, and watches the next one in the ring; whoever fails by
an error says so there before it goes. Who learns of a failure says it and ends the process, whatever its main thread waits for.
"""

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = 40.0
"""A process that gave none for so many seconds is taken for dead."""
GRACE = 10.0
"""Seconds that a process has to leave by itself once rank 0 has left."""


@dataclass(frozen=True)
class Member:
    """One process: its rank, its host, its number there, and the space of process numbers that this is one of."""

    rank: int
    host: str
    pid: int
    space: str

    @staticmethod
    def me(rank: int) -> "Member":
        """The process that calls."""
        space = ""
        with suppress(OSError):
            space = str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116
        return Member(rank, platform.node(), os.getpid(), space)

    def is_gone(self, seen_from: "Member") -> bool:
        """Whether it has surely ended: only of processes beside the own is that known."""
        if (self.host, self.space) != (seen_from.host, seen_from.space) or not self.space:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (process {self.pid})"


@dataclass(frozen=True)
class Failure:
    """Who failed, why, and the exit code of its error."""

    who: str
    why: str
    exit_code: int = 1


class Heartbeat:
    """The signs of life of this process, and its eye on another.

    Args:
        store: a client of the process group's store for this thread alone.
        rank, size: of this process and of the group.
        leave: called with what is to be said and the exit code where this process has to end because another has.
    """

    def __init__(self, store: Any, rank: int, size: int, leave: Callable[[str, int], None] | None = None) -> None:
        self.me, self.size, self.advice = Member.me(rank), size, ""
        self._store, self._leave = store, leave or _leave
        self._over, self._lock = threading.Event(), threading.Lock()
        self._beats = 0
        self._beat()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="heartbeat")
        self._thread.start()

    def fail(self, why: str, exit_code: int) -> bool:
        """Tell all others that this process ends. False where another one has told the same before."""
        own = json.dumps(asdict(Failure(str(self.me), why, exit_code)))
        self._over.set()
        with suppress(Exception), self._lock:
            first = json.loads(self._store.compare_set("failed", "", own))
            return first["who"] == str(self.me) or (first["why"], first["exit_code"]) != (why, exit_code)
        return True

    def await_verdict(self, seconds: float = SILENCE + 10) -> None:
        """Wait for the watching thread to find out who failed; it ends the process. Returns where nobody is found."""
        self._thread.join(seconds)

    def stop(self, exit_code: int = 0) -> None:
        """Take leave: this process ends well, and with rank 0 the run, for all.

        A launcher that finds one process dead asks the others to stop: who leaves because it was asked says who is missing.
        """
        self._over.set()
        with suppress(Exception), self._lock:
            for member in self._gone() if exit_code else ():
                sys.stderr.write(f"error: {member}: was killed or crashed\n")
            self._store.set(f"left/{self.me.rank}", "1")
            if self.me.rank == 0:
                self._store.set("over", str(exit_code))
        self._thread.join(5 * BEAT)  # a thread in the middle of a call would abort the process that ends

    def _gone(self) -> list[Member]:
        """All that have ended without leaving, as far as can be known here."""
        others = [rank for rank in range(self.size) if rank != self.me.rank and self._store.check([f"alive/{rank}"])]
        there = [rank for rank in others if not self._store.check([f"left/{rank}"])]
        members = [Member(**json.loads(self._store.get(f"alive/{rank}"))[1]) for rank in there]
        return [member for member in members if member.is_gone(self.me)]

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(f"alive/{self.me.rank}", json.dumps([self._beats, asdict(self.me)]))

    def _watch(self) -> None:
        other, heard, last = (self.me.rank + 1) % self.size, 0, time.monotonic()
        while not self._over.wait(BEAT):
            try:
                with self._lock:
                    self._beat()
                    if self._store.check(["failed"]):
                        self._end(Failure(**json.loads(self._store.get("failed"))))
                        return
                    if self._store.check(["over"]):
                        if not self._over.wait(GRACE):
                            self._leave("", int(self._store.get("over")))
                        return
                    if other != self.me.rank and self._store.check([f"left/{other}"]):
                        other, heard, last = (other + 1) % self.size, 0, time.monotonic()
                        continue
                    beats, member = 0, Member(other, "a host not heard of yet", 0, "")
                    if self._store.check([f"alive/{other}"]):
                        beats, facts = json.loads(self._store.get(f"alive/{other}"))
                        member = Member(**facts)
            except Exception as error:  # whatever a lost connection is called
                if not self._over.is_set():
                    self._end(Failure("the host of rank 0", f"its store does not answer: {error}"))
                return
            if beats != heard or other == self.me.rank:
                heard, last = beats, time.monotonic()
            gone, silent = member.is_gone(self.me), time.monotonic() - last
            if gone or silent > SILENCE:
                why = "was killed or crashed" if gone else f"has not answered for {silent:.0f} s"
                failure = Failure(str(member), why)
                with suppress(Exception), self._lock:
                    failure = Failure(**json.loads(self._store.compare_set("failed", "", json.dumps(asdict(failure)))))
                self._end(failure)
                return

    def _end(self, failure: Failure) -> None:
        if not self._over.is_set():
            help = f"   help: {self.advice}" if self.advice else ""
            said = f"error: {failure.who}: {failure.why}; {self.me} ends with it{help}\n"
            self._leave("" if failure.exit_code == 2 else said, failure.exit_code)  # a mistake is told once


def _leave(text: str, code: int) -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()
    os._exit(code)
