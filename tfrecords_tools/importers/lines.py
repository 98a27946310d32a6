"""Lines of text files, with the place that an error message names."""

from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from cion_jax.errors import UserError
from cion_jax.untrusted import open_file

#: No line that means something is longer.
MOST_LINE = 1 << 20


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text file."""
    try:
        with TextIOWrapper(open_file(path, "a text file was expected here"), "utf-8-sig", newline="") as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), ""), 1):
                if len(line) == MOST_LINE:
                    raise UserError(f"{path}:{number}: has more than {MOST_LINE:,} characters; it was to be a line")
                yield line
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; convert it first") from None


def placed_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that hold anything, without the spaces around it, each led by its place ("file:number")."""
    for number, line in enumerate(text_lines(path), 1):
        if stripped := line.strip():
            yield f"{path}:{number}", stripped
