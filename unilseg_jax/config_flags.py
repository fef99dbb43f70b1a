"""Reads a config file and the flags that change its keys; each mistake is told in one line that names it."""

import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_flags as of_library

from unilseg_jax.config_check import leaves, meant
from unilseg_jax.errors import UserError, checked_file

_MODULE = "unilseg_jax_config_file"


def taken(name: str, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Takes a flag out of the arguments.

    Args:
        name: of the flag, such as `--config`, whose value stands after `=` or as the next argument.
        arguments: of the command.

    Returns:
        Its last value, "" where it was not given, and the other arguments.
    """
    value, others, rest = "", [], iter(arguments)
    for argument in rest:
        if argument == name:
            value = next(rest, "")
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
        else:
            others.append(argument)
    return value, others


def check_flags(arguments: Sequence[str], known: Sequence[str], base: ConfigDict) -> None:
    """Refuses a flag that is neither known nor changes a key.

    Args:
        arguments: of the command.
        known: its flags, such as `--config`.
        base: has every key of a run.

    Raises:
        UserError: names the flag, and the one that may be meant.
    """
    # Of two keys of one name the one that stands higher is likelier.
    places = sorted((place for place, _ in leaves(base, "config")), key=lambda place: -place.count("."))
    names = {place.rpartition(".")[2]: f"--{place}" for place in places} | {flag.lstrip("-"): flag for flag in known}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag in known or not re.match("--?[a-zA-Z]", flag) or _key_of(argument):
            continue
        close = difflib.get_close_matches(flag.lstrip("-"), names, n=1)
        there = f"there are {', '.join(known)} and --config.KEY=VALUE"
        raise UserError(f"no flag {flag}; " + (f"is {names[close[0]]} meant?" if close else there))


def load_config(wanted: str) -> ConfigDict:
    """Runs a config file.

    Args:
        wanted: `FILE` or `FILE:VARIANT`, of which the second is handed to the file's `get_config`.

    Raises:
        UserError: there is no such file, or it makes no config.
    """
    name, colon, variant = wanted.partition(":")
    path = checked_file(name, "config file")
    get_config = None
    try:
        get_config = getattr(_executed(path), "get_config", None)
        config = get_config(*([variant] if colon else [])) if get_config else None
    except Exception as error:  # a config file is a program
        raise UserError(f"config file {_place(error, path, get_config)}{_variants(error, get_config)}") from None
    if get_config is None:
        raise UserError(f"config file {name!r} has no get_config(); wanted is one as in the files of configs/")
    if not isinstance(config, ConfigDict):
        raise UserError(f"{name}: get_config() returned {config!r}; wanted is base_config() with changes")
    return config


def change(config: ConfigDict, arguments: Sequence[str], base: ConfigDict) -> None:
    """Changes keys of a config, which is locked from then on.

    Args:
        config: as its file makes it.
        arguments: `--config.KEY=VALUE` or `--config.KEY VALUE`, and nothing else.
        base: has every key of a run.

    Raises:
        UserError: there is no such key, its value is of another type, or an argument is something else.
    """
    for key in filter(None, map(_key_of, arguments)):
        _check_key(config, key, base)
    values, argv = flags.FlagValues(), ["train", *arguments]
    try:
        of_library.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        text = _one_line(error).removeprefix("flag ").rstrip(".")
        raise UserError(f"{text}{_wanted(config, _key_of(text))}") from None
    except Exception as error:  # the library has no kinds of its own for many of them
        raise UserError(_one_line(error)) from None
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; wanted --config FILE --workdir DIR [--config.KEY=VALUE …]")


def _key_of(argument: str) -> str:
    """Returns the dotted key that an argument changes, "" if it changes none."""
    found = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    return found[1] if found else ""


def _check_key(config: ConfigDict, key: str, base: ConfigDict) -> None:
    whole, bracket, _ = key.partition("[")
    table, path = config, "config"
    for part in whole.split("."):
        if not isinstance(table, ConfigDict):
            raise UserError(f"--config.{key}: {path} is {table!r} and has no keys of its own")
        if part not in table:
            known = [place for place, _ in leaves(base, "config")]
            raise UserError(f"--config.{key}: {path}.{part} is no key of this run; {meant(part, table, path, known)}")
        table, path = table[part], f"{path}.{part}"
    if bracket and isinstance(table, ConfigDict):
        raise UserError(f"--config.{key}: {path} is a table, with the keys {', '.join(table)}; --{path}.KEY=…")
    if bracket:
        raise UserError(f"--config.{key}: no single element can be changed; give the whole value, --{path}=…")


def _wanted(config: ConfigDict, key: str) -> str:
    """Returns the end of an error's line about a value that a key cannot have."""
    value = config
    for part in key.split("."):
        value = value[part]
    if isinstance(value, ConfigDict):
        return f"; config.{key} is a table, with the keys {', '.join(value)}"
    return "" if value is None else f"; wanted is a value such as {value!r}"


def _executed(path: Path) -> ModuleType:
    """Returns a file as a module, whatever its suffix."""
    spec = spec_from_loader(_MODULE, SourceFileLoader(_MODULE, str(path)))
    assert spec is not None
    assert spec.loader is not None, "it was given"
    module = sys.modules[_MODULE] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _place(error: Exception, path: Path, get_config: object) -> str:
    """Returns where and how a config file failed, before or after it was found to have a `get_config`."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    # Zero bytes are a SyntaxError without a line, or a ValueError, by the version of Python.
    unreadable = isinstance(error, SyntaxError | ValueError) and not getattr(error, "lineno", None)
    if get_config is None and unreadable and not lines:
        return f"{str(path)!r} is no Python file: {_one_line(error)}; wanted is one as in configs/"
    line = f", line {lines[-1]}" if lines else ""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{path}{line}: {kind}{_one_line(error)}"


def _one_line(error: Exception) -> str:
    # A KeyError quotes its text.
    return " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())


def _variants(error: Exception, get_config: object) -> str:
    """Returns what a file's `get_config` says of its argument, for a variant that was refused as unknown."""
    if not isinstance(error, UserError) or "\nArgs:\n" not in (text := inspect.getdoc(get_config) or ""):
        return ""
    says = re.split(r"\n(?=\S)", text.partition("\nArgs:\n")[2])[0]
    return f"; this file says: {' '.join(says.split()).rstrip('.')}"
