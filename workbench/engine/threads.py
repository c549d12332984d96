"""How many cores a computation takes."""

import os

import torch


def leave_a_core() -> None:
    """Take one core less than there are, unless the number of threads was chosen by OMP_NUM_THREADS or torch.set_num_threads.

    torch's threads wait for each other at every operation: where one of them shares its core, with a browser say, all are slowed.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() >= cores > 1:
        torch.set_num_threads(cores - 1)
