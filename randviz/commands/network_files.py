"""Architectures of the user's own, named as FILE.py:NAME."""

import contextlib
import functools
import hashlib
import importlib.util
import pathlib
import re
import sys
from types import ModuleType
from typing import Any, NamedTuple

from randviz.networks.modules import ModuleNetwork, as_architecture
from randviz.networks.network import Network
from randviz.types import UserError, first_line

_PATTERN = re.compile(r"(.+\.py)(?::(\w+))?")


class NetworkFile(NamedTuple):
    """An architecture from a file.

    Attributes:
      architecture: of this package, or a Flax module.
      metadata: which file it was, plain values, for the record.
    """

    architecture: Network | ModuleNetwork
    metadata: dict[str, Any]


def names_file(source: str) -> bool:
    """Whether a network is named as a Python file's, right or wrong."""
    return _PATTERN.fullmatch(source) is not None


def load_network_file(source: str) -> NetworkFile:
    """Runs a Python file and takes a network from it.

    Args:
      source: "FILE.py:NAME", the name of a `Network`, a Linen module or its class, or the class of
        an NNX module.

    Raises:
      UserError: if there is no such file or name, the file cannot be run, or it is no network.
    """
    match = _PATTERN.fullmatch(source)
    assert match, source
    path, name = match.groups()
    text, module = _run(str(pathlib.Path(path).expanduser().resolve()), path)
    public = [word for word, value in vars(module).items() if _is_network(value, module)]
    if name is None or name not in vars(module):
        known = f"write {path}:NAME, NAME one of {', '.join(public)}" if public else "define one"
        lacks = "names no network" if name is None else f"has no {name}"
        raise UserError(f"--network={source} {lacks}; {known}.")
    found = vars(module)[name]
    try:
        architecture = found if isinstance(found, Network) else as_architecture(found)
    except UserError as error:
        raise UserError(f"--network={source}: {error}") from error
    sha256 = hashlib.sha256(text).hexdigest()[:16]
    return NetworkFile(architecture, {"file": path, "name": name, "file_sha256": sha256})


def _is_network(value: Any, module: ModuleType) -> bool:
    """Whether a value is a network of the file's own, and none that it imports."""
    if isinstance(value, Network):
        return True
    kind = value if isinstance(value, type) else type(value)
    is_module = any(base.__module__.startswith("flax.") for base in kind.__mro__)
    return is_module and kind.__module__ == module.__name__


# Once in a process: what is made twice of one file is the same class, and the same program.
@functools.cache
def _run(path: str, given: str) -> tuple[bytes, ModuleType]:
    try:
        text = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"--network={given}: there is no such file to be read.") from error
    name = f"randviz_network_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=path)
    assert spec
    module = importlib.util.module_from_spec(spec)
    module.__file__ = path
    sys.modules[name] = module  # as dataclasses, which Linen's modules are, look themselves up
    # What stands beside the file can be imported, as from a script.
    folder = str(pathlib.Path(path).parent)
    sys.path.insert(0, folder)
    try:
        exec(compile(text, path, "exec"), vars(module))
    except (Exception, SystemExit) as error:  # whatever somebody else's file raises
        del sys.modules[name]
        kind, said = type(error).__name__, first_line(error) if str(error) else ""
        raise UserError(
            f"--network={given} cannot be run ({kind}{said and f': {said}'}); run it with Python"
            " to see where."
        ) from error
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed the path, too
            sys.path.remove(folder)
    return text, module
