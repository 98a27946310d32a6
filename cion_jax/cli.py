"""The `cion` command: a tree of functions whose signatures are the arguments and whose docstrings are the help."""

import argparse
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from tyro.conf import subcommand

from cion_jax.commands.demo import demo
from cion_jax.commands.denoise import denoise
from cion_jax.commands.embed import embed
from cion_jax.commands.evaluate import evaluate
from cion_jax.commands.pretrain import pretrain
from cion_jax.commands.report import report
from cion_jax.commands.weights import export, import_
from cion_jax.commands.zoo import zoo
from cion_jax.config import Pretraining
from cion_jax.data.files import DRIVERS
from cion_jax.errors import UserError
from cion_jax.recipes import read_settings, recipe
from cion_jax.xla import avoid_faults
from tfrecords_tools import commands as data

Command = Callable[..., int | None]
Tree = dict[str, Any]  # of commands, and of trees

_GROUPS = {
    "data": "Import, draw, check, look at and rewrite datasets.",
    "import": "Read a dataset layout and write it as records.",
}


COMMANDS: Tree = {
    "demo": demo,
    "data": data.COMMANDS,
    "pretrain": pretrain,
    "embed": embed,
    "denoise": denoise,
    "evaluate": evaluate,
    "report": report,
    "zoo": zoo,
    "import": import_,
    "export": export,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments (default: the process's own) ask for, and return its exit code.

    What a user can mend ends with one line on stderr and code 1, or 2 where the arguments cannot be read.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache()))  # read when JAX starts, which --help does not
    avoid_faults()
    try:
        settings, arguments = _settings(arguments)
        _check_stores(arguments)
        return tyro.cli(
            _subcommands(_with_defaults(COMMANDS, settings)),
            prog="cion",
            description="Pre-train person re-identification backbones from unlabelled video tracklets.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
        ) or 0  # fmt: skip
    except (UserError, OSError) as error:
        print(f"cion: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cion: interrupted; repeat the command to take up what it was writing", file=sys.stderr)
        return 130


def _check_stores(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if (url := re.search(r"(\w+)://.*", argument)) and url[1] not in DRIVERS:
            kinds = ", ".join(f"{kind}://" for kind in DRIVERS)
            raise UserError(f"{url[0]}: not a store that can be read; name a folder, or a URL with {kinds}")


def _cache() -> Path:
    """Where compiled programs are kept, so that a run that goes on need not compile again."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "cion_jax").expanduser()


def _settings(arguments: Sequence[str] | None) -> tuple[Any, list[str]]:
    """What the options of a command start from, if the arguments say so, and the arguments without --settings.

    That is what the file named by --settings calls `settings`, or the experiment of `cion pretrain EXPERIMENT`.
    """
    parser = argparse.ArgumentParser(prog="cion", add_help=False, allow_abbrev=False)
    parser.add_argument("--settings", type=Path)
    chosen, others = parser.parse_known_args(arguments)
    experiment = others[1] if others[:1] == ["pretrain"] and others[1:] and not others[1].startswith("-") else None
    if chosen.settings is None:
        return (None if experiment is None else recipe(experiment)), others
    settings = read_settings(chosen.settings)
    if settings is None:
        raise UserError(f"{chosen.settings}: defines no `settings`; see experiments/ for examples")
    if isinstance(settings, Pretraining):
        raise UserError(f"{chosen.settings}: these are settings of a pre-training; give the file as its EXPERIMENT")
    if not is_dataclass(settings) or not any(_takes(command, settings) for command in _leaves(COMMANDS)):
        raise UserError(f"{chosen.settings}: no command takes settings of type {type(settings).__name__}")
    return settings, others


def _with_defaults(tree: Tree, settings: Any) -> Tree:
    """The tree with these settings as the default of every command that takes some of their type."""

    def replaced(command: Any) -> Any:
        if isinstance(command, dict):
            return _with_defaults(command, settings)
        return functools.partial(command, **dict.fromkeys(_takes(command, settings), settings))

    return tree if settings is None else {name: replaced(command) for name, command in tree.items()}


def _takes(command: Command, settings: Any) -> list[str]:
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return [parameter.name for parameter in parameters if parameter.annotation is type(settings)]


def _leaves(tree: Tree) -> Iterator[Command]:
    for command in tree.values():
        yield from _leaves(command) if isinstance(command, dict) else (command,)


def _subcommands(tree: Tree) -> Any:
    """The tree as the nested union of types that tyro makes subcommands of."""
    return Union[tuple(  # noqa: UP007  # made of as many types as there are commands
        Annotated[_subcommands(command), subcommand(name, description=_GROUPS[name])]
        if isinstance(command, dict)
        else Annotated[Any, subcommand(name, constructor=command)]
        for name, command in tree.items()
    )]  # fmt: skip
