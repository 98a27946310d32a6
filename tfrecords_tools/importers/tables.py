"""Rows of CSV and JSONL files."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from cion_jax.errors import UserError
from tfrecords_tools.importers.lines import placed_lines, text_lines


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Each row of a table as values by column, led by its place ("file:number"); empty lines do not count."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: ends neither with .csv nor with .jsonl; rename it to what it is")
    return readers[path.suffix.lower()](path)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    reader = csv.reader(text_lines(path), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise UserError(f"{path}:1: a column stands twice in {header}; rename one of them")
        for values in filter(None, reader):
            if len(values) != len(header):
                raise UserError(f"{path}:{reader.line_num}: {len(values)} values for {len(header)} columns")
            yield f"{path}:{reader.line_num}", dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not usable CSV: {error}") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    for place, line in placed_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not usable JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f'{place}: not an object like {{"path": "a.jpg", "video": 1}}')
        yield place, row
