"""Where tasks run; that it does not change results is tested with `layer_sweep`."""

import os
import threading
import time

from sklprep.sweeps.workers import run_tasks


def work(number, folder):
    (folder / str(os.getpid())).touch()
    time.sleep(0.02)
    return number, os.getpid()


def test_short_work_stays_in_this_process(tmp_path):
    tasks = ((work, number, tmp_path) for number in range(6))

    assert [(number, os.getpid()) for number in range(6)] == run_tasks(tasks, 6, 2)


def test_the_first_task_runs_beside_the_second_where_threads_are_sure_to_be_right():
    both = threading.Barrier(2)
    tasks = ((both.wait, 20) for _ in range(2))  # each waits for the other

    assert sorted(run_tasks(tasks, 2, 2, start_alone=False)) == [0, 1]


def test_long_work_runs_in_processes_and_here_while_these_start(tmp_path):
    deadline = time.monotonic() + 60

    def tasks():
        number = 0
        while number < 10 or (len(list(tmp_path.iterdir())) == 1 and time.monotonic() < deadline):
            yield work, number, tmp_path
            number += 1

    results = run_tasks(tasks(), 10_000, 2, processes_pay_seconds=0)

    assert list(range(len(results))) == [number for number, _ in results]
    processes = [process for _, process in results]
    assert len(set(processes)) > 1
    assert processes.count(os.getpid()) > 1  # more than the first
