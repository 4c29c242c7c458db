"""Where fits run: in threads, in processes where the work is long, or on a cluster."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from sklearn import config_context, get_config
from threadpoolctl import threadpool_limits

from sklprep.activations.activation_set import ActivationSet
from sklprep.formats.layers import ALL, parse_layers
from sklprep.formats.members import Members
from sklprep.transformers.layer_selector import LayerSelector
from sklprep.transformers.sae_selector import SAEFeatureSelector

PROCESSES_PAY_SECONDS = 15
"""Processes take seconds to start; from here on they win over threads, which lbfgs holds up."""

SAE_INPUT = re.compile(r"sae\s+(?P<layers>.+?)(\s+l0\s+(?P<average_l0>[0-9]+(\.[0-9]+)?))?")
"""An input of SAE features, such as "sae 12" or "sae 12 l0 82"."""

Job = tuple[Any, ...]
"""A function and its arguments."""

_LOCAL_BACKENDS = ("SequentialBackend", "ThreadingBackend", "LokyBackend", "MultiprocessingBackend")


@dataclass(frozen=True, eq=False)  # dask hashes it
class _OneThread:
    """Runs a function as the caller would, on one BLAS thread, in whichever process it is."""

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
    return type(get_active_backend()[0]).__name__ not in _LOCAL_BACKENDS


def run_jobs(jobs: Iterator[Job], total: int, n_jobs: int | None) -> list[Any]:
    """Call each function with its arguments, on one BLAS thread; results in the jobs' order.

    But on a cluster, the first job runs in this thread, to see how long it takes. It checks its
    models' parameters; the others, with clones of them, do not.
    """
    if is_on_cluster():
        call = _OneThread(get_config(), os.getpid())
        return Parallel(n_jobs=n_jobs)(delayed(call)(*job) for job in jobs)
    call = _OneThread(get_config() | {"skip_parameter_validation": True}, os.getpid())
    with threadpool_limits(1, user_api="blas"):
        start = time.perf_counter()
        first = function, *arguments = next(jobs)
        done = [function(*arguments)]
        ahead = (time.perf_counter() - start) * (total - 1)
        prefer = "processes" if ahead > PROCESSES_PAY_SECONDS else "threads"
        if prefer == "processes":
            started = _start_processes(n_jobs, first)
            while not started.is_set() and (job := next(jobs, None)) is not None:
                done.append(call(*job))
        queue = (delayed(call)(*job) for job in jobs)
        return done + Parallel(n_jobs=n_jobs, prefer=prefer)(queue)


def _start_processes(n_jobs: int | None, job: Any) -> threading.Event:
    """Start joblib's processes beside the work here: they import for seconds what a job needs."""
    started = threading.Event()
    if type(get_active_backend(prefer="processes")[0]).__name__ != "LokyBackend":
        started.set()
        return started

    def start() -> None:
        with suppress(Exception):  # the jobs will meet it too
            _keep_interrupts_from_processes()
            Parallel(n_jobs=n_jobs)(delayed(_receive)(job) for _ in range(effective_n_jobs(n_jobs)))
        started.set()

    threading.Thread(target=start, daemon=True).start()
    return started


def _keep_interrupts_from_processes() -> None:
    """Let Ctrl-C reach this process alone, which ends the others: they would print tracebacks.

    Processes inherit the blocked signals of the thread that starts them.
    """
    from multiprocessing import resource_tracker as tracker

    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    for one in (tracker, loky_tracker):
        one.ensure_running()  # which unblocks them in the thread that calls it first
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _receive(job: Any) -> None:
    """Do nothing: unpickling the job has imported all that it needs."""


class RemoteRows:
    """One input of a sweep as the path and the rows it is read from, for a worker elsewhere."""

    _kept: tuple[str, ActivationSet] | None = None
    _lock = threading.Lock()

    def __init__(
        self, acts: ActivationSet, spec: int | str, *, token: str, wanted: Members
    ) -> None:
        self.acts, self.spec, self.token, self.wanted = acts, spec, token, wanted

    def read(self) -> Any:
        """Read the rows; a process keeps what it read for the other jobs of the same token."""
        with self._lock, parallel_config(backend="threading"):
            kept = RemoteRows._kept
            if kept is None or kept[0] != self.token:
                self.acts.rows.source.read(self.wanted)
                kept = RemoteRows._kept = (self.token, self.acts)
            return select(kept[1], self.spec)


def make_selector(spec: int | str) -> LayerSelector | SAEFeatureSelector:
    """Give the selector of one input, by the name that the sweep has for it."""
    sae = SAE_INPUT.fullmatch(str(spec))
    if sae is None:
        return LayerSelector(spec)
    average_l0 = sae["average_l0"]
    return SAEFeatureSelector(sae["layers"], average_l0=average_l0 and float(average_l0))


def select(acts: Any, spec: int | str) -> Any:
    """Give the rows of one input, (n_samples, n_features)."""
    if isinstance(acts, ActivationSet) or acts.ndim == 2:
        selector, X = make_selector(spec), acts
    else:  # the selector checks all it is given, so it is given what is needed
        selector, X = LayerSelector(ALL), acts[:, parse_layers(spec)]
    return selector.set_output(transform="default").fit_transform(X)
