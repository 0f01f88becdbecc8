"""Settings of a command: a frozen data class whose fields become absl flags.

Flags are made when a command runs and live in a registry of their own, because absl's global one
refuses two modules that both define `--seed`.
"""

import atexit
import contextlib
import csv
import dataclasses
import difflib
import gc
import inspect
import io
import itertools
import math
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from absl import flags

from randviz.host import signals
from randviz.host.images import explain_failure
from randviz.host.runs import Stopped
from randviz.types import UserError

Settings = TypeVar("Settings")

# What absl says of numbers, and what a user understands.
_PLAIN_WORDS = (
    (r"invalid literal for int\(\).*", "not a whole number"),
    (r"could not convert string to float.*", "not a number"),
)
_HELP_FLAGS = {"--help", "-h", "--helpshort", "--helpfull"}
_HELP_WIDTH = 80  # columns of a terminal
_NAME_WIDTH = 28  # of them, for a flag's name and default
_MOST_SAID = 300  # characters of a value that are repeated in a message

# Flags that were called otherwise in earlier versions and are still read: {old: new}.
_OLD_FLAGS = {
    "reading": "gradient_reduction",
    "style_shares": "style_blend_weights",
    "num_samples": "num_networks",
}


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    lower_bound: float | None = None,
    upper_bound: float | None = None,
    several: bool = False,
    rare: bool = False,
) -> Any:
    """Describes one field of a settings class.

    A subclass that has another default only repeats the name: `num_steps: int = 200`.

    Args:
      default: of the flag; its type chooses the flag's: bool, int, float, str, or tuple for a
        comma-separated list.
      help: what it means, in plain language; its first sentence is all that `--help` shows.
      choices: the only values allowed.
      lower_bound: the smallest number allowed.
      upper_bound: the largest number allowed.
      several: of text, whether more words may follow the first, as a shell makes them of a
        pattern; the value of several is a tuple.
      rare: whether it is seldom needed, so that `--helpfull` alone shows it.

    Returns:
      A data class field.
    """
    metadata = {"help": help, "choices": choices, "bounds": (lower_bound, upper_bound)}
    metadata |= {"several": several, "rare": rare}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class CommandSettings:
    """Settings that every command has."""

    dry_run: bool = setting(
        False,
        "Only says what memory and time it would take. A few steps are taken to measure it.",
    )
    out_dir: str = setting("out", "Folder for everything that is written.")


def list_fields(settings_class: type) -> list[dataclasses.Field]:
    """The fields of a settings class, each with the description that it has where it last has one.

    Args:
      settings_class: a data class of `setting` fields.

    Returns:
      Fields with `default` and `metadata`: the class's own first, then those of its bases.
    """
    found = {}
    for base in settings_class.__mro__:
        for name in inspect.get_annotations(base):
            field = vars(base)["__dataclass_fields__"][name]
            if field.metadata:
                found.setdefault(name, field)
    fields = []
    for name, described in found.items():
        default = settings_class.__dataclass_fields__[name].default
        field = dataclasses.field(default=default, metadata=described.metadata)
        field.name = name
        fields.append(field)
    return fields


def list_values(settings: Any, *excluded_fields: str) -> dict[str, Any]:
    """The settings by name that a result depends on.

    Args:
      settings: an instance of a settings class.
      excluded_fields: names of those it does not depend on.

    Returns:
      {name: value} of the others.
    """
    values = dataclasses.asdict(settings)
    excluded_fields += ("dry_run",)
    return {name: value for name, value in values.items() if name not in excluded_fields}


def list_flags(settings: Any) -> list[str]:
    """The command line that `parse_flags` reads as these settings.

    Args:
      settings: an instance of a settings class.

    Returns:
      "--name=value" for each setting that is not the default.
    """
    found = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            value = format_list(value) if isinstance(value, tuple) else value
            found.append(f"--{field.name}={value}")
    return found


def format_list(values: Sequence[str]) -> str:
    """Writes a list as a flag reads it.

    Example:
      >>> print(format_list(["a.png", "b, c.png"]))
      a.png,"b, c.png"
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def parse_flags(settings_class: type[Settings], argv: Sequence[str]) -> Settings:
    """Reads settings from a command line, flag files included.

    Args:
      settings_class: a frozen data class of `setting` fields.
      argv: the arguments after the command's name.

    Returns:
      An instance.

    Raises:
      UserError: for an unknown flag, a bad value, or an argument that is no flag.
    """
    values = flags.FlagValues()
    for field in list_fields(settings_class):
        _define_flag(field, values)
    for old, new in _OLD_FLAGS.items():
        if new in values:
            flags.DEFINE_alias(old, new, flag_values=values)
    argv, more = _take_more_words(argv, list_fields(settings_class))
    try:
        rest = values(["randviz", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        name = error.flagname[:_MOST_SAID]
        near = suggest(name.replace("-", "_"), values, prefix="--")
        raise UserError(f"there is no flag --{name}{near}; --helpfull lists all.") from error
    except (flags.Error, OSError, UnicodeError) as error:
        said = str(error).splitlines()[0].rstrip(" ?.")
        for pattern, plain in _PLAIN_WORDS:
            said = re.sub(pattern, plain, said)
        raise UserError(f"{said[:_MOST_SAID]}; --helpfull lists all flags.") from error
    except RecursionError as error:  # absl looks for a similar name letter by letter
        raise UserError("a flag's name has a thousand letters; see --helpfull.") from error
    if rest:
        raise UserError(
            f"{rest[0][:_MOST_SAID]!r} is not a flag; write --name=value, and see --help."
        )
    found = {}
    for field in dataclasses.fields(settings_class):
        value = values[field.name].value
        # Every bound lets "nan" through, and an infinite weight is no weight.
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{field.name}={value} is not a finite number; give one.")
        # A shell expands ~ at the beginning of a word only, which here is the flag's name.
        is_list = isinstance(field.default, tuple)
        if more.get(field.name):
            is_list, value = True, (value, *more[field.name])
        found[field.name] = tuple(map(_expand_home, value)) if is_list else _expand_home(value)
    return settings_class(**found)


def _take_more_words(
    argv: Sequence[str], fields: Sequence[dataclasses.Field]
) -> tuple[list[str], dict[str, list[str]]]:
    """Takes out the words that follow a flag's first, of flags that have several: {flag: words}."""
    names = {field.name for field in fields if field.metadata["several"]}
    rest, more, name = [], {}, ""
    remaining = iter(argv)
    for word in remaining:
        if not word.startswith("-"):
            (more[name] if name in names else rest).append(word)
            continue
        name, has_value, _ = word.lstrip("-").partition("=")
        more[name] = []  # of a flag that is given twice the last value counts
        rest += [word, *itertools.islice(remaining, 0 if has_value or name not in names else 1)]
    return rest, more


def _expand_home(value: Any) -> Any:
    return os.path.expanduser(value) if isinstance(value, str) else value


def _define_flag(field: dataclasses.Field, values: flags.FlagValues) -> None:
    default, help = field.default, field.metadata["help"]
    choices, bounds = field.metadata["choices"], field.metadata["bounds"]
    if choices:
        flags.DEFINE_enum(field.name, default, choices, help, flag_values=values)
    elif isinstance(default, bool):
        flags.DEFINE_boolean(field.name, default, help, flag_values=values)
    elif isinstance(default, int):
        flags.DEFINE_integer(field.name, default, help, *bounds, flag_values=values)
    elif isinstance(default, float):
        flags.DEFINE_float(field.name, default, help, *bounds, flag_values=values)
    elif isinstance(default, tuple):
        flags.DEFINE_list(field.name, list(default), help, flag_values=values)
    else:
        flags.DEFINE_string(field.name, default, help, flag_values=values)


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Suggests what was meant by a word that is unknown.

    Args:
      word: as it was written.
      known: words that exist.
      prefix: what is written before each.

    Returns:
      ", perhaps ... is meant" with the nearest one; nothing if none is near.

    Example:
      >>> suggest("stile", ["invert", "texture", "style"])
      ', perhaps style is meant'
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", perhaps {prefix}{near[0]} is meant" if near else ""


def describe_flags(settings_class: type, *, full: bool = False) -> str:
    """The flags of a settings class with defaults and meanings, as text for `--help`.

    Args:
      settings_class: a data class of `setting` fields.
      full: whether all flags are described in full; else those often needed, a sentence each.

    Returns:
      Lines of at most 80 columns where no default is longer: the class's own flags first.
    """
    lines = []
    for field in list_fields(settings_class):
        if field.metadata["rare"] and not full:
            continue
        text = field.metadata["help"]
        if full and field.metadata["choices"]:
            text += f" One of {', '.join(field.metadata['choices'])}."
        elif not full:
            text = re.match(r".*?\.(?= |$)", text)[0]
        flag = _format_flag(field.name, field.default)
        if not full and len(flag) > _HELP_WIDTH:  # a long list, of which the beginning says enough
            flag = f"{flag[: flag.rindex(',', 0, _HELP_WIDTH)]},..."
        lines += _describe_flag(flag, text)
    return "\n".join(lines)


def _format_flag(name: str, default: Any) -> str:
    if isinstance(default, bool):
        return f"--no{name}" if default else f"--{name}"
    value = ",".join(default) if isinstance(default, tuple) else default
    return f"--{name}={'...' if value == '' else value}"


def _describe_flag(flag: str, text: str) -> list[str]:
    """A flag and its meaning in two columns; the meaning below, where the flag is too long."""
    indent = " " * (_NAME_WIDTH + 2)
    first = f"  {flag:<{_NAME_WIDTH}}"
    before = [first] if len(flag) >= _NAME_WIDTH else []
    start = indent if before else first
    return before + textwrap.wrap(text, _HELP_WIDTH, initial_indent=start, subsequent_indent=indent)


_FULL_END = (
    *_describe_flag("--flagfile=FILE", "Reads flags from a file, one a line; # starts a comment."),
    "",
    "--noNAME turns off a flag that has no value.",
)


def describe_command(settings_class: type, doc: str, *, full: bool) -> str:
    """What `--help` and `--helpfull` print.

    Args:
      settings_class: of the command.
      doc: of its module.
      full: whether all flags are described.
    """
    described = describe_flags(settings_class, full=full)
    end = "\n".join(_FULL_END)
    if not full:
        rare = sum(field.metadata["rare"] for field in list_fields(settings_class))
        end = f"\n--helpfull describes all flags in full{f', and {rare} more' if rare else ''}."
    head = "Flags, with their defaults (... where there is none):"
    return f"{inspect.cleandoc(doc)}\n\n{head}\n\n{described}\n{end}"


def run_command(
    name: str,
    settings_class: type[Settings],
    run: Callable[[Settings], None],
    argv: Sequence[str],
    doc: str,
) -> int:
    """Runs a command from its arguments, and turns the user's mistakes into one sentence.

    Args:
      name: how the command is called, for messages.
      settings_class: its settings.
      run: what it does.
      argv: the arguments after its name.
      doc: what `--help` says above the flags.

    Returns:
      The exit code: 0, or 2 after a mistake of the user's, or 130 when stopped by a signal in a
      process that is not ours to end.
    """
    if asked := _HELP_FLAGS & set(argv):
        print(describe_command(settings_class, doc, full="--helpfull" in asked))
        return 0
    # Or the interpreter looks through all that JAX has made once more, for most of a second.
    atexit.register(gc.freeze)
    try:
        with print_warnings(name):
            settings = parse_flags(settings_class, argv)
            configure_jax(getattr(settings, "precision", "highest"))
            run(settings)
    except (Stopped, KeyboardInterrupt) as error:
        print(f"{name}: {str(error) or 'stopped.'}", file=sys.stderr)
        signals.end_by_signal()
        return 130
    except Exception as error:
        said = explain_error(error)
        if said is None:
            raise
        print(f"{name}: {said}", file=sys.stderr)
        signals.end_by_signal()
        return 2
    return 0


@contextlib.contextmanager
def print_warnings(name: str) -> Iterator[None]:
    """Prints warnings of this program's as sentences, each time.

    Args:
      name: of the command, which comes first.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(
            f"{name}: warning: {message}", file=sys.stderr
        )
        yield


def explain_error(error: Exception) -> str | None:
    """The sentence for a mistake of the user's or for what the machine lacks.

    Args:
      error: what was raised.

    Returns:
      The sentence; None for a fault of the program.
    """
    if isinstance(error, UserError):
        return str(error)
    lacks_memory = isinstance(error, jax.errors.JaxRuntimeError) and "memory" in str(error).lower()
    if lacks_memory or isinstance(error, MemoryError):
        return "there is not enough memory; take a smaller picture."
    if isinstance(error, OSError):  # such as a full disk, at a file that nothing else depends on
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{explain_failure(error)}."
    return None


PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}
# XLA:CPU hands matrix products and convolutions to YNNPACK in jaxlib 0.10.2 and later. It is slower
# here (an evaluation at 256 pixels takes about a tenth longer, and its times scatter), and some of
# its programs crash or hang (jax issues 37465 and 39257). An empty list turns it off. Other
# versions may not know the flag, and XLA aborts the process for a flag that it does not know.
_NO_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type="
_VERSIONS_WITH_YNNPACK = ((0, 10, 1), (0, 12))


def configure_jax(precision: str) -> None:
    """Arithmetic as asked for, and compiled programs kept for the next run.

    Where the user's environment has chosen otherwise, that stands. To be called before JAX computes
    anything, or some of it comes too late.

    Args:
      precision: a name in `PRECISIONS`.
    """
    flags_before = os.environ.get("XLA_FLAGS", "")
    first, end = _VERSIONS_WITH_YNNPACK
    if first <= jax.__version_info__ < end and "ynn_fusion" not in flags_before:
        os.environ["XLA_FLAGS"] = f"{flags_before} {_NO_YNNPACK}".strip()
    if precision != "highest":
        jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])
    elif jax.config.jax_default_matmul_precision is None:
        # On GPUs and TPUs jax's own default is to round float32 factors to 10 or 7 bits.
        jax.config.update("jax_default_matmul_precision", "highest")
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "randviz"))
        # Small programs too: there are dozens, and a second start should not compile at all.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
