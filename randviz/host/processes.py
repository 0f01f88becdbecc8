"""Several processes that are one JAX, on one machine or on many."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from randviz.host.settings import setting
from randviz.types import UserError, first_line

Prepared = TypeVar("Prepared")


@dataclasses.dataclass(frozen=True)
class ProcessSettings:
    """Settings of a command that several processes can run together."""

    coordinator_address: str = setting(
        "",
        "Where several processes meet: host:port of the first. Empty: as the cluster says.",
        rare=True,
    )
    num_processes: int = setting(
        1,
        "How many processes take part; -1 asks the cluster (Slurm, TPU pod, MPI).",
        lower_bound=-1,
        rare=True,
    )
    process_id: int = setting(
        -1,
        "Which of them this is, from 0; -1 asks the cluster.",
        lower_bound=-1,
        rare=True,
    )


def join_processes(settings: ProcessSettings) -> None:
    """Makes one JAX of several processes, if there are several.

    Raises:
      UserError: if the address is no host:port, or the processes cannot meet.
    """
    address, num_processes = settings.coordinator_address, settings.num_processes
    if not address and num_processes == 1:
        return
    if address and ":" not in address:
        raise UserError(f"--coordinator_address={address} has no port; write host:port.")
    try:
        jax.distributed.initialize(
            address or None,
            num_processes if num_processes > 0 else None,
            settings.process_id if settings.process_id >= 0 else None,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes cannot meet ({first_line(error)}); give"
            " --coordinator_address, --num_processes and --process_id, or start them in a cluster"
            " that JAX knows."
        ) from error


def together(prepare: Callable[[], Prepared]) -> Prepared:
    """Prepares something in every process; if it fails in one, none waits for it.

    Args:
      prepare: called once in each process.

    Returns:
      What it returned in this process.

    Raises:
      UserError: its own, or one that names the process that failed.
    """
    if jax.process_count() == 1:
        return prepare()
    error = result = None
    try:
        result = prepare()
    except UserError as caught:
        error = caught
    failed = multihost_utils.process_allgather(np.array(error is not None))
    if error:
        raise error
    if failed.any():
        raise UserError(f"process {np.argmax(failed)} stopped, and says why.")
    return result


def broadcast(values: np.ndarray) -> np.ndarray:
    """The first process's array, in every process."""
    if jax.process_count() == 1:
        return values
    return multihost_utils.broadcast_one_to_all(values)
