"""Compiled programs, which take mappings of memory that a process may have a limited number of."""

import pathlib

import jax

_PROCESS = pathlib.Path("/proc")
_SHARE = 0.5  # of the mappings allowed: what is done next may compile many programs, too


def release_programs() -> None:
    """Lets go of all compiled programs, if their mappings are many.

    Linux allows a process 65,530 mappings by default, and a program takes several for its code. At
    the limit XLA's compiler ends the process. What is needed again comes from the compilation cache
    on disk. Called between two pieces of work, where nothing waits for a program.
    """
    try:
        allowed = int((_PROCESS / "sys/vm/max_map_count").read_text())
        count = (_PROCESS / "self/maps").read_bytes().count(b"\n")
    except (OSError, ValueError):
        return  # no Linux, and no such limit
    if count > _SHARE * allowed:
        jax.clear_caches()
