"""Tables that say which groups people belong to, for `fairness`: read, checked, and never copied.

A table may hold what must not become known. So a message names the file and the line, but never a person of the table
or what a row holds: messages may end up in somebody's log.
"""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from cion_jax.errors import UserError
from cion_jax.untrusted import open_file

#: For each column of a table the group of each person, by identity; "" where the table leaves it open.
Groups = Mapping[str, Mapping[int, str]]

#: The largest table in bytes: enough for a million people.
LARGEST = 1 << 25


def read_groups(path: Path) -> Groups:
    """Read the groups of people from a CSV file: a line `identity,COLUMN,...`, then a row for each person.

    An identity is the whole number by which the data know the person. An empty cell says that the group is not known.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        head = [cell.strip() for cell in next(reader, [])]
        if len(head) < 2 or head[0] != "identity" or not all(head) or len(set(head)) < len(head):
            raise UserError(f"{path}:1: must be identity,COLUMN,... with one column or more, each named once")
        people: dict[int, list[str]] = {}
        for row in filter(None, reader):
            identity, groups = _person(f"{path}:{reader.line_num}", row, len(head))
            if identity in people:
                raise UserError(f"{path}:{reader.line_num}: this identity has a row already; leave one of them")
            people[identity] = groups
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not usable CSV: {error}") from None
    if not people:
        raise UserError(f"{path}: has no rows; write one for each person")
    return {name: {identity: row[number] for identity, row in people.items()} for number, name in enumerate(head[1:])}


def _text(path: Path) -> str:
    try:
        with open_file(path, "name a table of groups, a CSV file") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST >> 20} MiB; a table of groups has one short row per person")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save it as CSV in that encoding") from None


def _person(place: str, row: list[str], columns: int) -> tuple[int, list[str]]:
    """The identity and the groups of a row; `place` is the file and the line, for messages."""
    identity, *groups = [cell.strip() for cell in row]
    if len(row) != columns:
        raise UserError(f"{place}: {len(row)} values for {columns} columns; leave empty what is not known")
    if not re.fullmatch("[0-9]{1,18}", identity):
        raise UserError(f"{place}: the identity is not a whole number from 0; write the one that the data have")
    if not all(group.isprintable() for group in groups):
        raise UserError(f"{place}: a group has characters that cannot be printed; rename it")
    return int(identity), groups
