"""Stop all ranks after a failure of one rank, with a message that names it.

A rank that waits in a collective operation is blocked inside a library, which reports a lost
connection at best. Therefore a thread of every rank writes a heartbeat with the number of
collective operations to the rendezvous store once per second, and reads failures from it.
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

from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import TCPStore  # type: ignore[attr-defined]

from ..misc.distributed import restart_store
from ..misc.errors import RankError
from ..misc.text import first_line

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_HEARTBEAT_TIMEOUT_S = 4.0  # without a heartbeat: the process or its machine is gone
_GRACE_S = 3.0  # for a rank to raise its own exception
_FAILURE = "watch/failure"
# Messages of the libraries about a lost connection, which has no exception type.
_LOST_CONTACT = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|recv|Timed out", re.I)


class RankWatch:
    """Monitors the ranks of a run.

    Args:
        store: a separate connection to the rendezvous store.
        rank: index of this process.
        world_size: number of ranks.
        timeout_s: maximum wait for another rank.
    """

    def __init__(self, store: Store, *, rank: int, world_size: int, timeout_s: float) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._timeout_s = timeout_s
        self._collectives = 0
        self._waits_since: float | None = None
        self._beats = 0
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._beat()
        threading.Thread(target=self._run, name="rank watch", daemon=True).start()

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Return a context for an operation that waits for all ranks."""
        before, self._waits_since = self._waits_since, time.monotonic()
        self._collectives += 1
        try:
            yield
        finally:
            self._waits_since = before

    def close(self) -> None:
        """Stop monitoring."""
        self._is_over.set()

    def report(self, error: Exception) -> Exception:
        """Publish an error of this rank; the first error of all ranks is kept.

        Returns:
            The error to show: the error itself, or the failure that explains a lost connection.
        """
        if isinstance(error, RuntimeError) and _LOST_CONTACT.search(str(error)):
            return self._explain(error)
        self._publish(f"{type(error).__name__}: {error}")
        return error

    def _explain(self, error: Exception) -> Exception:
        before, begin = self._heartbeats(), time.monotonic()
        while time.monotonic() - begin < _HEARTBEAT_TIMEOUT_S:
            failure = self._failure()
            if failure:
                return RankError(failure)
            time.sleep(_HEARTBEAT_S / 4)
        after = self._heartbeats()
        dead = [r for r in range(self._world_size) if before.get(r) == after.get(r)]
        dead = [r for r in dead if r != self._rank]
        if not dead:
            self._publish(f"{type(error).__name__}: {error}")
            return error
        message = (
            f"{self._names(dead, after)}: not running or not reachable; killed, possibly for "
            "lack of memory, or disconnected"
        )
        self._publish(message, is_own=False)
        return RankError(message)

    def _publish(self, message: str, *, is_own: bool = True) -> None:
        name = self._names([self._rank], self._heartbeats())
        text = f"{name}: {message}" if is_own else message
        try:
            with self._lock:
                self._store.compare_set(_FAILURE, "", json.dumps([self._rank, text]))
        except RuntimeError as problem:
            logger.debug("failure not published: %s", problem)

    def _failure(self) -> str | None:
        """Return the failure that another rank published."""
        try:
            with self._lock:
                if not self._store.check([_FAILURE]):
                    return None
                rank, text = json.loads(self._store.get(_FAILURE))
        except RuntimeError:
            return None
        return None if rank == self._rank else str(text)

    def _run(self) -> None:
        while not self._is_over.wait(_HEARTBEAT_S):
            try:
                self._beat()
                failure = self._failure() or self._late_ranks()
            except RuntimeError as error:  # the store ended with the main rank or its agent
                if self._waits_since is None:
                    return
                failure = f"the main rank or its agent is not reachable ({first_line(error)})"
            if failure:
                self._end(failure)
                return

    def _beat(self) -> None:
        self._beats += 1
        beat = [self._beats, self._collectives, socket.gethostname(), os.getpid()]
        with self._lock:
            self._store.set(f"watch/{self._rank}", json.dumps(beat))

    def _heartbeats(self) -> dict[int, tuple[int, int, str, int]]:
        """Return by rank: heartbeats, collective operations, host, process ID."""
        beats = {}
        try:
            with self._lock:
                for rank in range(self._world_size):
                    if self._store.check([f"watch/{rank}"]):
                        beats[rank] = tuple(json.loads(self._store.get(f"watch/{rank}")))
        except RuntimeError as problem:
            logger.debug("no heartbeats: %s", problem)
        return beats

    def _late_ranks(self) -> str | None:
        """Return a message that names the ranks that this one has waited for too long."""
        since, collectives = self._waits_since, self._collectives
        if since is None or time.monotonic() - since < self._timeout_s:
            return None
        beats = self._heartbeats()
        late = [r for r in range(self._world_size) if r not in beats or beats[r][1] < collectives]
        if not late:
            return None
        text = (
            f"{self._names(late, beats)}: did not reach the collective operation that the others "
            f"wait in within {self._timeout_s:g} s; check its process, or raise rank_timeout_s"
        )
        self._publish(text, is_own=False)
        return text

    @staticmethod
    def _names(ranks: list[int], beats: dict[int, tuple[int, int, str, int]]) -> str:
        known = [
            f"{rank} ({beats[rank][2]}, process {beats[rank][3]})" if rank in beats else str(rank)
            for rank in ranks
        ]
        return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(known)}"

    def _end(self, failure: str) -> None:
        """End this process, which may be blocked where no exception can be raised."""
        if self._is_over.wait(_GRACE_S):
            return
        logger.error("ending this rank: %s", failure)
        logging.shutdown()
        os._exit(1)


def watch_ranks(*, rank: int, world_size: int, timeout_s: float) -> RankWatch:
    """Start monitoring; the address of the store is in the environment."""
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
    )
    return RankWatch(restart_store(store), rank=rank, world_size=world_size, timeout_s=timeout_s)
