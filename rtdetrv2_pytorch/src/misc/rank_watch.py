"""Ranks end together: a failure of one is told to all, and one that stays away is named.

A rank that waits for another is stuck inside a library, which at best says that a connection
timed out. So a thread of every rank notes once a second, in the store that they started from, how
many meetings (collective operations) its rank has come to, and looks there for failures.
"""

import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import TCPStore  # type: ignore[attr-defined]

from .errors import RankError
from .text import first_line

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_SILENT_S = 4.0  # without a note: the process or its machine is gone
_GRACE_S = 3.0  # for a rank to end by itself once it knows
_FAILURE = "watch/failure"
# What the libraries say about the other end; their errors have no types of their own.
_LOST_CONTACT = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|recv|Timed out", re.I)


class RankWatch:
    """Watches over the ranks of a run.

    Args:
        store: a connection to the store, of its own.
        rank: of this process.
        world_size: number of ranks.
        timeout_s: that a rank may wait for another.
    """

    def __init__(self, store: Store, *, rank: int, world_size: int, timeout_s: float) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._timeout_s = timeout_s
        self._meetings = 0
        self._waits_since: float | None = None
        self._beats = 0
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._note()
        threading.Thread(target=self._run, name="rank watch", daemon=True).start()

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Where all ranks have to come before any goes on."""
        before, self._waits_since = self._waits_since, time.monotonic()
        self._meetings += 1
        try:
            yield
        finally:
            self._waits_since = before

    def close(self) -> None:
        """Watch no more."""
        self._is_over.set()

    def report(self, error: Exception) -> Exception:
        """Tell the other ranks that this one fails; the first that does is believed.

        Returns:
            What to report here: the error, or for a lost contact the failure that explains it.
        """
        if isinstance(error, RuntimeError) and _LOST_CONTACT.search(str(error)):
            return self._explain(error)
        self._publish(f"{type(error).__name__}: {error}")
        return error

    def _explain(self, error: Exception) -> Exception:
        before, begin = self._notes(), time.monotonic()
        while time.monotonic() - begin < _SILENT_S:
            failure = self._failure()
            if failure:
                return RankError(failure)
            time.sleep(_EVERY_S / 4)
        after = self._notes()
        silent = [r for r in range(self._world_size) if before.get(r) == after.get(r)]
        silent = [r for r in silent if r != self._rank]
        if not silent:
            self._publish(f"{type(error).__name__}: {error}")
            return error
        gone = f"{self._names(silent, after)}: gone; killed, perhaps for lack of memory, or cut off"
        self._publish(gone, is_own=False)
        return RankError(gone)

    def _publish(self, message: str, *, is_own: bool = True) -> None:
        name = self._names([self._rank], self._notes())
        text = f"{name}: {message}" if is_own else message
        try:
            with self._lock:
                self._store.compare_set(_FAILURE, "", json.dumps([self._rank, text]))
        except RuntimeError as problem:
            logger.debug("nobody to tell: %s", problem)

    def _failure(self) -> str | None:
        """What another rank said that it failed of."""
        try:
            with self._lock:
                if not self._store.check([_FAILURE]):
                    return None
                rank, text = json.loads(self._store.get(_FAILURE))
        except RuntimeError:
            return None
        return None if rank == self._rank else str(text)

    def _run(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            try:
                self._note()
                failure = self._failure() or self._missing()
            except RuntimeError as error:  # the store went with the main rank or its agent
                if self._waits_since is None:
                    return
                failure = f"the main rank or its agent is gone ({first_line(error)})"
            if failure:
                self._end(failure)
                return

    def _note(self) -> None:
        self._beats += 1
        note = [self._beats, self._meetings, socket.gethostname(), os.getpid()]
        with self._lock:
            self._store.set(f"watch/{self._rank}", json.dumps(note))

    def _notes(self) -> dict[int, tuple[int, int, str, int]]:
        """By rank: beats, meetings, host, process."""
        notes = {}
        try:
            with self._lock:
                for rank in range(self._world_size):
                    if self._store.check([f"watch/{rank}"]):
                        notes[rank] = tuple(json.loads(self._store.get(f"watch/{rank}")))
        except RuntimeError as problem:
            logger.debug("no notes: %s", problem)
        return notes

    def _missing(self) -> str | None:
        """Who keeps this rank waiting for too long."""
        since, meetings = self._waits_since, self._meetings
        if since is None or time.monotonic() - since < self._timeout_s:
            return None
        notes = self._notes()
        late = [r for r in range(self._world_size) if r not in notes or notes[r][1] < meetings]
        if not late:
            return None
        text = (
            f"{self._names(late, notes)}: did not come to where the others wait within "
            f"{self._timeout_s:g} s; look at what it does, or raise rank_timeout_s"
        )
        self._publish(text, is_own=False)
        return text

    @staticmethod
    def _names(ranks: list[int], notes: dict[int, tuple[int, int, str, int]]) -> str:
        known = [
            f"{rank} ({notes[rank][2]}, process {notes[rank][3]})" if rank in notes else str(rank)
            for rank in ranks
        ]
        return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(known)}"

    def _end(self, failure: str) -> None:
        """End this process, which may be stuck where no exception reaches it."""
        if self._is_over.wait(_GRACE_S):
            return
        logger.error("this rank ends with the others: %s", failure)
        logging.shutdown()
        os._exit(1)


def of_this_start(store: Store) -> Store:
    """A store without what an earlier start of the same run has left in it.

    Only a launcher alone knows how often all ranks were started.
    """
    is_alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if is_alone else "0"
    return PrefixStore(f"start_{start}", store)


def watch_ranks(*, rank: int, world_size: int, timeout_s: float) -> RankWatch:
    """Begin to watch; the address of the store is in the environment."""
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
    )
    return RankWatch(of_this_start(store), rank=rank, world_size=world_size, timeout_s=timeout_s)
