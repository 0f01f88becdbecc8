"""Several processes that are one JAX, on one machine or on many."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from randviz.types import UserError

Prepared = TypeVar("Prepared")


def join_processes(address: str, num_processes: int, process_id: int) -> None:
    """Makes one JAX of several processes, if there are several.

    Args:
      address: host:port of the first process, or "" to ask the cluster.
      num_processes: how many; 1 and no address is a process alone, -1 asks the cluster.
      process_id: this one's number; -1 asks the cluster.

    Raises:
      UserError: if the address is no host:port, or the processes cannot meet.
    """
    if not address and num_processes == 1:
        return
    if address and ":" not in address:
        raise UserError(f"--coordinator_address={address} has no port; write host:port.")
    try:
        jax.distributed.initialize(
            address or None,
            num_processes if num_processes > 0 else None,
            process_id if process_id >= 0 else None,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes cannot meet ({str(error).splitlines()[0].rstrip('.')}); give"
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
