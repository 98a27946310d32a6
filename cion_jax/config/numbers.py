"""Numbers that may be left to the program."""

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

#: What stands for a number that is found when a run begins.
AUTO = -1


def _parse(words: list[str]) -> int:
    return AUTO if words[0] == "auto" else int(words[0])


#: A whole number, or `auto`.
IntOrAuto = Annotated[
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|auto",
        instance_from_str=_parse,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: ["auto" if value == AUTO else str(value)],
    ),
]
