"""Where fits run: in threads, in processes where the work is long, or on a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.parallel import (
    LokyBackend,
    MultiprocessingBackend,
    SequentialBackend,
    ThreadingBackend,
    get_active_backend,
)
from sklearn import config_context, get_config
from threadpoolctl import threadpool_limits

from sklprep.activations.activation_set import ActivationSet
from sklprep.formats.members import Members
from sklprep.sweeps.inputs import InputSpec

PROCESSES_PAY_SECONDS = 15
"""Remaining work from which processes are faster than threads. A process takes 3 s of CPU to import
what a task needs, and two of them on two busy cores up to 20 s. Threads are as good for newton-cg,
but lbfgs contends for Python's lock: 12 fits of 400 x 1,000 take 0.8 s in one thread, 1.8 s in
two."""

Task = tuple[Any, ...]
"""A function and its arguments."""

_LOCAL_BACKENDS = (SequentialBackend, ThreadingBackend, LokyBackend, MultiprocessingBackend)


@dataclass(frozen=True, eq=False)  # dask hashes it
class _OneThread:
    """Runs a function as the caller would, on one BLAS thread, in any process."""

    config: dict[str, Any]
    pid: int

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        # within the caller's process the limit is set already; it holds for all its threads
        same = os.getpid() == self.pid
        limit = nullcontext() if same else threadpool_limits(1, user_api="blas")
        with limit, config_context(**self.config):
            return function(*args)


def is_on_cluster() -> bool:
    """Tell whether `joblib.parallel_config` sends work to other machines."""
    return not isinstance(get_active_backend()[0], _LOCAL_BACKENDS)


def run_tasks(
    tasks: Iterator[Task],
    total: int,
    n_jobs: int | None,
    *,
    processes_pay_seconds: float = PROCESSES_PAY_SECONDS,
    start_alone: bool = True,
) -> list[Any]:
    """Call each function with its arguments, on one BLAS thread; results in the tasks' order.

    Except on a cluster, the first task runs in this process, to see how long it takes; alone, if
    threads may turn out to be slower than processes. It checks its models' parameters; the others,
    which have clones of these models, do not.
    """
    if is_on_cluster():
        call = _OneThread(get_config(), os.getpid())
        return Parallel(n_jobs=n_jobs)(delayed(call)(*task) for task in tasks)
    call = _OneThread(get_config() | {"skip_parameter_validation": True}, os.getpid())
    start_alone |= not isinstance(get_active_backend(prefer="threads")[0], ThreadingBackend)
    first, is_enough = next(tasks), threading.Event()

    def in_threads() -> Iterator[Any]:
        yield delayed(_OneThread(get_config(), os.getpid()))(*first)
        while not is_enough.is_set() and (task := next(tasks, None)) is not None:
            yield delayed(call)(*task)

    with threadpool_limits(1, user_api="blas"):
        start, prefer = time.perf_counter(), "threads"
        options: dict[str, Any] = {"prefer": prefer, "pre_dispatch": "n_jobs"}
        results = Parallel(1 if start_alone else n_jobs, return_as="generator", **options)(
            in_threads()
        )
        done = [next(results)]
        if (time.perf_counter() - start) * (total - 1) > processes_pay_seconds:
            prefer = "processes"
            _start_processes(n_jobs, first, is_enough)
        elif start_alone:
            is_enough.set()
        done += results
        return done + Parallel(n_jobs, prefer=prefer)(delayed(call)(*task) for task in tasks)


def _start_processes(n_jobs: int | None, task: Task, started: threading.Event) -> None:
    """Start joblib's processes beside the work here: they import for seconds what a task needs."""
    if not isinstance(get_active_backend(prefer="processes")[0], LokyBackend):
        started.set()
        return

    def start() -> None:
        with suppress(Exception):  # the tasks will run into it too
            _keep_interrupts_from_processes()
            n_processes = effective_n_jobs(n_jobs)
            Parallel(n_jobs=n_jobs)(delayed(_receive)(task) for _ in range(n_processes))
        started.set()

    threading.Thread(target=start, daemon=True).start()


def _keep_interrupts_from_processes() -> None:
    """Let Ctrl-C reach this process only, which ends the others: they would print tracebacks.

    Processes inherit the blocked signals of the thread that starts them.
    """
    from multiprocessing import resource_tracker as tracker

    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    for one in (tracker, loky_tracker):
        one.ensure_running()  # which unblocks them in the thread that calls it first
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _receive(task: Any) -> None:
    """Do nothing: unpickling the task has imported all that it needs."""


class RemoteRows:
    """One input of a sweep as the path and rows to read it from, for a worker elsewhere."""

    _kept: tuple[str, ActivationSet] | None = None
    _lock = threading.Lock()

    def __init__(
        self, acts: ActivationSet, spec: InputSpec, *, token: str, wanted: Members
    ) -> None:
        self.acts, self.spec, self.token, self.wanted = acts, spec, token, wanted

    def read(self) -> Any:
        """Read the rows; a process keeps what it read for the other tasks of the same token."""
        with self._lock, parallel_config(backend="threading"):
            kept = RemoteRows._kept
            if kept is None or kept[0] != self.token:
                self.acts.rows.source.read(self.wanted)
                kept = RemoteRows._kept = (self.token, self.acts)
            return self.spec.select(kept[1])
