"""Lines of text files, with the place that an error message names."""

from collections.abc import Iterator
from pathlib import Path

from cion_jax.errors import UserError


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a text file was expected here") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; convert it first") from None


def placed_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that hold anything, without the spaces around it, each led by its place ("file:number")."""
    for number, line in enumerate(text_lines(path), 1):
        if stripped := line.strip():
            yield f"{path}:{number}", stripped
