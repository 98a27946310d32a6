"""Whether retrieval serves groups of people alike: an audit against a table that its keeper gives.

One cannot address disparities that one cannot see. What group somebody belongs to is never inferred from images: it is
only read, from a table that stays apart from the data and is not copied anywhere. What comes out are sums over groups
of many people; no message names a person of the table, or what a row holds.

A measure is a numerator and a denominator for each query, and its value for a group

    sum of the numerators / sum of the denominators, over the queries that show people of the group.

Its interval is a percentile bootstrap over people: as many as the group has are drawn from it with replacement, all
queries of a person together, again and again. The two groups of a gap are drawn independently. What is not drawn is the
gallery: intervals say what other people who ask would change, not what another gallery would.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.errors import UserError

#: For each column of a table the group of each person, "" where the table does not tell.
Groups = Mapping[str, Mapping[int, str]]

#: Numerators and denominators, an array (Q,) of each, by the name of the measure.
Measures = Mapping[str, tuple[np.ndarray, np.ndarray]]

#: Bytes of a table at the most: enough for a million people.
LARGEST = 1 << 25
#: How often each draw has each person: so many of these numbers are in memory together.
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A value, or the difference of two, and its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Group:
    """A group that is large enough to be shown."""

    name: str
    people: int
    queries: int
    values: dict[str, Estimate | None]
    """By measure; None where fewer than `min_group` of its people have a denominator other than 0."""


@dataclass(frozen=True)
class Gap:
    """The two groups of a column that are the farthest apart in a measure."""

    above: str
    below: str
    size: Estimate
    """The interval is that of these two; that they were picked for their gap is not accounted for."""


@dataclass(frozen=True)
class Column:
    """What one column of the table divides people into."""

    name: str
    groups: list[Group]
    gaps: dict[str, Gap | None]
    """By measure; None where fewer than two groups have a value."""
    small_groups: int
    """Groups that are left out."""
    small_people: int
    """People in those together."""
    missing: int
    """People of the data for whom the table has no row, or an empty cell."""


@dataclass(frozen=True)
class Audit:
    """What `audit` found; neither here nor in what is made of it stands a person."""

    columns: list[Column]
    measures: list[str]
    people: int
    """People of the data."""
    unknown: int
    """People of the table whom no query shows."""
    min_group: int
    confidence: float
    rounds: int


def read_groups(path: Path) -> Groups:
    """The groups of people from a CSV file: a line `identity,COLUMN,...`, then a row for each person.

    An identity is the whole number by which the data knows the person. An empty cell says that the group is not known.
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
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST >> 20} MiB; a table of groups has one short row per person")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a table of groups, a CSV file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save it as CSV in that encoding") from None


def _person(place: str, row: list[str], columns: int) -> tuple[int, list[str]]:
    """Identity and groups. Messages tell the place but not what stands there: they may end up in somebody's log."""
    identity, *groups = [cell.strip() for cell in row]
    if len(row) != columns:
        raise UserError(f"{place}: {len(row)} values for {columns} columns; leave empty what is not known")
    if not re.fullmatch("[0-9]{1,18}", identity):
        raise UserError(f"{place}: the identity is no whole number from 0; write the one that the data has")
    if not all(group.isprintable() for group in groups):
        raise UserError(f"{place}: a group has characters that cannot be printed; name it otherwise")
    return int(identity), groups


def audit(
    groups: Groups,
    identity: np.ndarray,
    measures: Measures,
    *,
    min_group: int = 20,
    confidence: float = 0.95,
    rounds: int = 2000,
) -> Audit:
    """How measures of retrieval differ between groups. The same call gives the same figures.

    Groups that are shown can be subtracted from a score of everybody that stands elsewhere: where few are missing or
    left out, the rest tells of them. Mind what is published together.

    Args:
        groups: What `read_groups` returned.
        identity: (Q,) whom each query shows; queries below 0 show nobody and are passed over.
        measures: Numerators and denominators, (Q,) each, by the name of the measure.
        min_group: People, not images, that a group needs to be shown.
        confidence: Of the intervals.
        rounds: How often people are drawn.
    """
    _check(identity, measures, min_group, confidence, rounds)
    shown = identity >= 0
    people, person, queries = np.unique(identity[shown], return_inverse=True, return_counts=True)
    listed, present = set().union(*groups.values()), set(people.tolist())
    if listed.isdisjoint(present):
        raise UserError(f"none of the {len(listed):,} people of the table is in the data; write the data's identities")
    sums = [[np.bincount(person, part[shown], len(people)) for part in parts] for parts in measures.values()]
    sums_Mx2xP, random, columns = np.array(sums), np.random.default_rng(0), []
    for column, group_of in groups.items():
        rows_of, small, missing = _split(group_of, people, min_group)
        found, drawn = [], {}
        for name, rows in rows_of.items():
            drawn[name] = dict(zip(measures, _drawn(sums_Mx2xP[:, :, rows], min_group, rounds, random), strict=True))
            values = {measure: _estimate(draws, confidence) for measure, draws in drawn[name].items()}
            found.append(Group(name, len(rows), int(queries[rows].sum()), values))
        gaps = {measure: _gap({name: drawn[name][measure] for name in drawn}, confidence) for measure in measures}
        columns.append(Column(column, found, gaps, len(small), sum(small), missing))
    return Audit(columns, list(measures), len(present), len(listed - present), min_group, confidence, rounds)


def _check(identity: np.ndarray, measures: Measures, min_group: int, confidence: float, rounds: int) -> None:
    if min_group < 1 or rounds < 1:
        raise UserError(f"min-group {min_group}, rounds {rounds}: both must be at least 1")
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence}: must be between 0 and 1, like 0.95")
    for name, parts in measures.items():
        if any(part.shape != identity.shape or not np.isfinite(part).all() for part in parts):
            raise UserError(f"{name}: needs a finite numerator and denominator for each of {len(identity):,} queries")


def _split(group_of: Mapping[int, str], people: np.ndarray, least: int) -> tuple[dict[str, list[int]], list[int], int]:
    """The rows of people in each group that is large enough, the sizes of the others, and how many have no group."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, identity in enumerate(people.tolist()):
        rows_of[group_of.get(identity, "")].append(row)
    missing = len(rows_of.pop("", []))
    large = {name: rows for name, rows in sorted(rows_of.items()) if len(rows) >= least}
    return large, [len(rows) for rows in rows_of.values() if len(rows) < least], missing


def _drawn(sums_Mx2xP: np.ndarray, least: int, rounds: int, random: np.random.Generator) -> np.ndarray:
    """The measures (M, 1 + rounds) of the people as they are, and of as many drawn with replacement.

    NaN for 0 / 0, and where so few people have a denominator that the value would tell of them.
    """
    enough = np.count_nonzero(sums_Mx2xP[:, 1], axis=1) >= least
    people = sums_Mx2xP.shape[2]
    step, even = max(1, _AT_ONCE // people), np.full(people, 1 / people)
    parts = [sums_Mx2xP.sum(axis=2, keepdims=True)]
    for done in range(0, rounds, step):
        times_RxP = random.multinomial(people, even, min(step, rounds - done))
        parts.append(sums_Mx2xP @ times_RxP.T.astype(np.float64))
    above, below = np.concatenate(parts, axis=2).swapaxes(0, 1)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=(below != 0) & enough[:, None])


def _gap(drawn: Mapping[str, np.ndarray], confidence: float) -> Gap | None:
    order = sorted((draws[0], name) for name, draws in drawn.items() if np.isfinite(draws[0]))
    if len(order) < 2:
        return None
    (_, below), (_, above) = order[0], order[-1]
    size = _estimate(drawn[above] - drawn[below], confidence)
    return None if size is None else Gap(above, below, size)


def _estimate(drawn: np.ndarray, confidence: float) -> Estimate | None:
    """From the value and those of the draws, of which those without one are passed over."""
    value, known = drawn[0], drawn[1:][np.isfinite(drawn[1:])]
    if not np.isfinite(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(value), float(low), float(high))


def tables(found: Audit) -> dict[str, list[list[str]]]:
    """For each column of the table a row per group: its name, people, queries, and each of `found.measures`."""
    return {
        column.name: [
            [group.name, f"{group.people:,}", f"{group.queries:,}", *(str(v or "-") for v in group.values.values())]
            for group in column.groups
        ]
        for column in found.columns
    }


def notes(found: Audit) -> list[str]:
    """What the tables do not say by themselves: gaps, who is not in them, and what must not be concluded."""
    told = [note for column in found.columns for note in _of_column(column, found)]
    estimates = [value for column in found.columns for group in column.groups for value in group.values.values()]
    if any(estimates):
        told.append(f"In brackets: {100 * found.confidence:g} % intervals, from {found.rounds:,} draws of people.")
    if any(each and each.high - each.low < 1e-9 for each in estimates):
        told.append("An interval without width says that these people score alike, not that others would.")
    if found.unknown:
        told.append(f"People of the table whom no query shows: {found.unknown:,}.")
    if any(column.missing or column.small_groups for column in found.columns):
        who = "those whom the table does not show, or who are left out,"
        told.append(f"A disparity among {who} cannot be seen here and cannot be ruled out.")
    return told


def _of_column(column: Column, found: Audit) -> list[str]:
    told, pairs = [], len(column.groups) * (len(column.groups) - 1) // 2
    for measure, gap in column.gaps.items():
        if gap is None:
            continue
        picked = f", picked as the largest of {pairs:,} gaps" if pairs > 1 else ""
        chance = "; it may be chance, for the interval holds 0" if gap.size.low <= 0 else ""
        told.append(f"{column.name}, {measure}: {gap.above} is above {gap.below} by {gap.size}{picked}{chance}.")
    if not pairs:
        told.append(f"{column.name}: fewer than two groups of at least {found.min_group:,} people; nothing to compare.")
    elif lacking := [measure for measure, gap in column.gaps.items() if gap is None]:
        told.append(f"{column.name}: fewer than two groups have enough people for {', '.join(lacking)}.")
    if column.small_groups:
        small = f"{column.small_groups:,}, with {column.small_people:,} people in all"
        told.append(f"{column.name}: groups left out for fewer than {found.min_group:,} people: {small}.")
    if column.missing:
        told.append(f"{column.name}: people without a group in the table: {column.missing:,} of {found.people:,}.")
    return told


def as_json(found: Audit) -> dict[str, Any]:
    """The same figures for machines."""
    return asdict(found)
