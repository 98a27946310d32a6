"""Arguments that have a place in every command may also be given by name: DATA as --data DATA, OUT as --out OUT."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from etils import epath
from tyro.conf import Positional

#: The arguments, and what their values are.
_KINDS: dict[str, Callable[[str], Any]] = {"data": epath.Path, "out": Path}


def take_named(command: Callable[..., Any], options: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What options give by name that has a place in this command, and the other options."""
    parameters = inspect.signature(command).parameters
    names = {f"--{name}": name for name in _KINDS if name in parameters and _has_a_place(parameters[name])}
    given = {}
    others = []
    rest = iter(options)
    for option in rest:
        flag, equals, value = option.partition("=")
        if flag in names and (equals or (value := next(rest, ""))):
            given[names[flag]] = _KINDS[names[flag]](value)
        else:
            others.append(option)
    return given, others


def bind(command: Callable[..., Any], given: dict[str, Any]) -> Callable[..., Any]:
    """The command without those arguments: one that is given by name has no place any more."""
    if not given:
        return command
    signature = inspect.signature(command)

    def bound(**arguments: Any) -> Any:
        return command(**arguments, **given)

    left = [parameter for name, parameter in signature.parameters.items() if name not in given]
    bound.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    bound.__annotations__ = {parameter.name: parameter.annotation for parameter in left}
    bound.__doc__ = inspect.getdoc(getattr(command, "func", command))
    return bound


def _has_a_place(parameter: inspect.Parameter) -> bool:
    return Positional in get_args(parameter.annotation)
