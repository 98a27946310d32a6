"""Files that somebody may have touched: opened only if they are files, read with limits, refused in one line."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn

from cion_jax.errors import UserError

#: No JSON that the program reads is larger or deeper.
MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 32

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def check_is_file(path: Path, remedy: str) -> None:
    """Refuse what is not there, and folders, pipes, sockets and devices, which one could wait for without an end."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # a path of etils has a stat of its own
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: not there; {remedy}") from None
    except (OSError, ValueError) as error:  # a name may hold what no name can
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}; {remedy}") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file; {remedy}")


def open_file(path: Path, remedy: str) -> BufferedReader:
    """Open a file to read its bytes; `remedy` ends the line that says why that cannot be."""
    check_is_file(path, remedy)
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from None


def read_file(path: Path, remedy: str, most: int) -> bytes:
    """The bytes of a file that must not have more than `most`."""
    with open_file(path, remedy) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path}: has more than {most:,} bytes; {remedy}")
    return data


def read_text(path: Path, remedy: str, most: int = MAX_JSON_BYTES) -> str:
    """The text of a UTF-8 file that must not have more than `most` bytes."""
    try:
        return read_file(path, remedy, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; {remedy}") from None


def read_json(
    path: Path, remedy: str, kinds: Mapping[str, type | UnionType] = {}, needed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        remedy: What to do about a file that is not like that; ends the line of the UserError.
        kinds: Types that values must have where they are there, by name. A bool is no int, an int is no float.
        needed: Names that must be there.
    """
    return parse_json(read_file(path, remedy, MAX_JSON_BYTES), path, remedy, kinds, needed)


def parse_json(
    text: bytes, path: object, remedy: str, kinds: Mapping[str, type | UnionType] = {}, needed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The object in JSON text, as `read_json` reads it; `path` says where the text comes from."""
    try:
        contents = json.loads(text, parse_constant=_refuse_constant)
        _check_depth(contents, MAX_JSON_DEPTH)
        if not isinstance(contents, dict):
            raise ValueError(f"a {type(contents).__name__}, not an object")
        if missing := [name for name in needed if name not in contents]:
            raise ValueError(f"it has no {', '.join(missing)}")
        for name, kind in kinds.items():
            if name in contents and not _is(contents[name], kind):
                raise ValueError(f"{name} is {json.dumps(contents[name])[:40]}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: unreadable ({' '.join(str(error).split())[:120]}); {remedy}") from None
    return contents


def signed(card: dict[str, Any]) -> dict[str, Any]:
    """A card with a digest of all that stands in it, wherever its lines stand."""
    rest = {name: value for name, value in card.items() if name != "digest"}
    return rest | {"digest": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def check_signed(card: dict[str, Any], path: Path) -> None:
    """Refuse a card that is not as it was written; older ones have no digest."""
    if "digest" in card and card["digest"] != signed(card)["digest"]:
        remedy = "copy the folder again, or remove the digest if you changed the card yourself"
        raise UserError(f"{path}: not as it was written (its digest differs); {remedy}")


def file_digest(path: Path, remedy: str) -> str:
    """SHA-256 of a file, in hex; `remedy` ends the line that says why it cannot be read."""
    with open_file(path, remedy) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, expected: str | None, remedy: str) -> None:
    """Refuse a file whose digest is not the one that a card has; None where an older card has none."""
    if expected is not None and file_digest(path, remedy) != expected:
        raise UserError(f"{path}: not as it was written (its digest differs); {remedy}")


def _is(value: object, kind: type | UnionType) -> bool:
    return type(value) in getattr(kind, "__args__", (kind,))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Any, most: int) -> None:
    if not most:
        raise ValueError(f"nested more than {MAX_JSON_DEPTH} deep")
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_depth(each, most - 1)
