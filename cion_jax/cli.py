"""The `cion` command: a tree of functions whose signatures are the arguments and whose docstrings are the help."""

import difflib
import functools
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import tyro
from etils import epath

import cion_jax
from cion_jax.commands.demo import demo
from cion_jax.commands.denoise import denoise
from cion_jax.commands.embed import embed
from cion_jax.commands.evaluate import evaluate
from cion_jax.commands.finetune import adapt, backbone_of, bnneck, mgn
from cion_jax.commands.hub import card, pull, push
from cion_jax.commands.index import enrol, forget, index
from cion_jax.commands.named import bind, take_named
from cion_jax.commands.people import people
from cion_jax.commands.pretrain import pretrain
from cion_jax.commands.report import report
from cion_jax.commands.search import search
from cion_jax.commands.weights import export, import_
from cion_jax.commands.zoo import zoo
from cion_jax.config import Bnneck, ClusterContrast, Finetuning, Mgn, World
from cion_jax.data.files import DRIVERS
from cion_jax.errors import UserError
from cion_jax.recipes import published, read_settings, recipe
from cion_jax.xla import avoid_faults, silence
from tfrecords_tools import commands as data

Command = Callable[..., int | None]
Tree = dict[str, Any]  # of commands, and of trees

COMMANDS: Tree = {
    "demo": demo,
    "people": people,
    "data": data.COMMANDS,
    "pretrain": pretrain,
    "finetune": {"bnneck": bnneck, "mgn": mgn},
    "adapt": adapt,
    "embed": embed,
    "denoise": denoise,
    "evaluate": evaluate,
    "index": index,
    "search": search,
    "enrol": enrol,
    "forget": forget,
    "report": report,
    "zoo": zoo,
    "import": import_,
    "export": export,
    "card": card,
    "push": push,
    "pull": pull,
}

#: The settings that each command of fine-tuning starts from.
FINE_TUNING: dict[Command, Finetuning] = {bnneck: Bnneck(), mgn: Mgn(), adapt: ClusterContrast()}

#: What a group of commands is for, by the words that name it.
_GROUPS = {
    "cion": "Pre-train person re-identification backbones from unlabelled video tracklets.",
    "cion data": "Import, draw, check, look at and rewrite datasets.",
    "cion data import": "Read a dataset layout and write it as records.",
    "cion finetune": "Fine-tune a pre-trained backbone on labelled people, by one of two methods.",
}

#: Options that had another name in the last release. The old name works until the next one.
RENAMED = {"--stream": "--shuffle-window", "--part": "--key"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments (default: the process's own) ask for, and return its exit code.

    What a user can mend ends with one line on stderr and code 1, or 2 where the arguments cannot be read. Where nobody
    reads on what is printed, as behind `| head`, it ends quietly with the code of a process that SIGPIPE has ended.
    """
    try:
        try:
            return _main(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(_is_unread, (sys.stdout, sys.stderr)):
            os.dup2(silence, stream.fileno())  # Python flushes once more when it ends
        return 128 + signal.SIGPIPE


def _main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache()))  # read when JAX starts, which --help does not
    avoid_faults()
    silence()
    words, command, options = _find(list(arguments))
    if isinstance(command, dict):
        return _describe(words, command, options)
    options = [_current_name(option) for option in options]
    try:
        _check_stores(options)
        named, options = take_named(command, options)
        return _call(words, bind(_with_settings(words, command, named, options), named), options) or 0
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and any(map(_is_unread, (sys.stdout, sys.stderr))):
            raise
        print(f"cion: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cion: interrupted; repeat the command to take up what it was writing", file=sys.stderr)
        return 130


def _is_unread(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose other end is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # it is no file of the system's
        return False


def _find(arguments: list[str]) -> tuple[str, Command | Tree, list[str]]:
    """The words of a command or of a group of commands, what they name, and the arguments that follow."""
    words = "cion"
    command: Any = COMMANDS
    while isinstance(command, dict) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name not in command:
            _refuse(words, name, command)
        words = f"{words} {name}"
        command = command[name]
    return words, command, arguments


def _refuse(words: str, name: str, group: Tree) -> NoReturn:
    """Answer a name that a group does not have, and end with code 2."""
    near = difflib.get_close_matches(name, group, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(group)}"
    print(f"{words}: no command is called {name!r}; {hint}", file=sys.stderr)
    raise SystemExit(2)


def _describe(words: str, group: Tree, options: list[str]) -> int:
    """Answer arguments that name a group: with its help, the version, or its help as an error."""
    if words == "cion" and options == ["--version"]:
        print(f"cion {cion_jax.__version__}")
        return 0
    asked = options[:1] in (["-h"], ["--help"])
    width = max(map(len, group))
    lines = [f"usage: {words} COMMAND ...", "", _GROUPS[words], ""]
    for name, command in group.items():
        summary = _GROUPS.get(f"{words} {name}") or (command.__doc__ or "").strip().partition("\n")[0]
        lines.append(f"  {name:{width}}  {summary}")
    lines += ["", f"`{words} COMMAND --help` shows what a command takes."]
    print("\n".join(lines), file=None if asked else sys.stderr)
    return 0 if asked else 2


def _current_name(option: str) -> str:
    """The option by the name that it has now; an old name is answered with a line."""
    name, equals, value = option.partition("=")
    if name not in RENAMED:
        return option
    print(f"cion: {name} is called {RENAMED[name]} now; the old name ends with the next release", file=sys.stderr)
    return RENAMED[name] + equals + value


def _with_settings(words: str, command: Command, named: dict[str, Any], options: list[str]) -> Command:
    """The command, whose defaults are the settings that its options start from: --help shows them, options override."""
    if command is pretrain:
        usual = {"experiment": "resnet50_ibn", "data": epath.Path()}
        experiment = _peek(words, "experiment", functools.partial(pretrain, **usual | named), options)
        return functools.partial(pretrain, settings=recipe(experiment))
    if command in FINE_TUNING:
        given = functools.partial(command, **{"weights": Path(), "data": epath.Path()} | named)
        data_set = _peek(words, "like", given, options)
        if data_set is not None:
            weights = _peek(words, "weights", given, options)
            settings = published(FINE_TUNING[command], backbone_of(weights), data_set)
            return functools.partial(command, settings=settings)
        return command
    if command is data.synth:
        file = _peek(words, "settings", functools.partial(data.synth, out=epath.Path()), options)
        return functools.partial(data.synth, world=read_settings(file, World)) if file else data.synth
    return command


def _peek(words: str, name: str, command: functools.partial[Any], options: list[str]) -> Any:
    """One argument of a command, wherever it stands: all are read as the command reads them, and nothing is run.

    The command needs no argument, so that a question for --help may lack those that must be there.
    """

    @functools.wraps(command.func)
    def argument(**arguments: Any) -> Any:
        return arguments[name]

    without_help = [option for option in options if option not in ("-h", "--help")]
    return _call(words, functools.partial(argument, **command.keywords), without_help)


def _call(words: str, command: Command, options: list[str]) -> Any:
    """Call a command with what its options say; where they cannot be read, say why and end with code 2."""
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(command, prog=words, args=options, config=config)


def _check_stores(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if (url := re.search(r"(\w+)://.*", argument)) and url[1] not in DRIVERS:
            kinds = ", ".join(f"{kind}://" for kind in DRIVERS)
            raise UserError(f"{url[0]}: not a store that can be read; name a folder, or a URL with {kinds}")


def _cache() -> Path:
    """Where compiled programs are kept, so that a run that goes on need not compile again."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "cion_jax").expanduser()
