"""Whether retrieval serves groups of people alike: an audit by a table that says who belongs to which group.

Groups are only read from the table, never inferred from images. The results are sums over groups of many people; no
message names a person of the table, or what a row holds.

A measure has a numerator and a denominator for each query. Its value for a group is

    sum of the numerators / sum of the denominators, over the queries that show people of the group.

Its interval is a percentile bootstrap over people: as many people as the group has are drawn with replacement, each
with all queries that show the person, again and again. The two groups of a gap are drawn independently. The gallery is
not drawn: intervals say how values would vary with other people as queries, not with another gallery.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cion_jax.errors import UserError
from cion_jax.evaluate.group_table import Groups

#: Numerators and denominators, an array (Q,) of each, by the name of the measure.
Measures = Mapping[str, tuple[np.ndarray, np.ndarray]]

#: Draws are made in parts of at most so many counts (draws x people), which bounds the memory they take.
COUNTS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A value, or the difference of two values, with its interval."""

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
    """By measure; None where fewer than `min_group` people have a denominator other than 0."""


@dataclass(frozen=True)
class Gap:
    """The two groups of a column that differ the most in a measure."""

    above: str
    below: str
    size: Estimate
    """The interval is that of these two groups; it does not account for their being picked as the largest gap."""


@dataclass(frozen=True)
class Column:
    """The groups of one column of the table."""

    name: str
    groups: list[Group]
    gaps: dict[str, Gap | None]
    """By measure; None where fewer than two groups have a value."""
    small_groups: int
    """Groups that are left out since they are too small."""
    small_people: int
    """People in these groups together."""
    missing: int
    """People of the data who have no row in the table, or an empty cell."""


@dataclass(frozen=True)
class Audit:
    """The result of `audit`: it holds sums over groups, and no single person."""

    columns: list[Column]
    measures: list[str]
    people: int
    """People whom the queries show."""
    unknown: int
    """People of the table whom no query shows."""
    min_group: int
    confidence: float
    rounds: int


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

    Take care what is published together: whoever knows the score of all people can subtract the groups that are shown,
    and learn about the rest where only few people are missing or left out.

    Args:
        groups: What `group_table.read_groups` returned.
        identity: (Q,) whom each query shows; queries below 0 show nobody and are ignored.
        measures: Numerators and denominators, (Q,) each, by the name of the measure.
        min_group: People, not images, that a group needs to be shown.
        confidence: Of the intervals.
        rounds: How often people are drawn.
    """
    _check(identity, measures, min_group, confidence, rounds)
    shown = identity >= 0
    people, person, queries = np.unique(identity[shown], return_inverse=True, return_counts=True)
    listed = set().union(*groups.values())
    present = set(people.tolist())
    if listed.isdisjoint(present):
        raise UserError(f"none of the {len(listed):,} people of the table is in the data; write the data's identities")
    # Numerator and denominator of each measure, summed over the queries of each person.
    sums = [[np.bincount(person, part[shown], len(people)) for part in parts] for parts in measures.values()]
    sums_Mx2xP = np.array(sums)
    random = np.random.default_rng(0)
    columns = []
    for column, group_of in groups.items():
        rows_of, small, missing = _split(group_of, people, min_group)
        large = []
        draws_of: dict[str, dict[str, np.ndarray]] = {}
        for name, rows in rows_of.items():
            draws = _bootstrap(sums_Mx2xP[:, :, rows], min_group, rounds, random)
            draws_of[name] = dict(zip(measures, draws, strict=True))
            values = {measure: _estimate(each, confidence) for measure, each in draws_of[name].items()}
            large.append(Group(name, len(rows), int(queries[rows].sum()), values))
        gaps = {
            measure: _gap({name: draws[measure] for name, draws in draws_of.items()}, confidence)
            for measure in measures
        }
        columns.append(Column(column, large, gaps, len(small), sum(small), missing))
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
    small = [len(rows) for rows in rows_of.values() if len(rows) < least]
    return large, small, missing


def _bootstrap(sums_Mx2xP: np.ndarray, least: int, rounds: int, random: np.random.Generator) -> np.ndarray:
    """The measures (M, 1 + rounds): first of the people as they are, then of each draw with replacement.

    NaN for 0 / 0, and where fewer than `least` people have a denominator: the value would say too much about them.
    """
    people = sums_Mx2xP.shape[2]
    equal = np.full(people, 1 / people)
    step = max(1, COUNTS_AT_ONCE // people)
    sums = [sums_Mx2xP.sum(axis=2, keepdims=True)]
    for done in range(0, rounds, step):
        times_RxP = random.multinomial(people, equal, min(step, rounds - done))  # how often each draw has each person
        sums.append(sums_Mx2xP @ times_RxP.T.astype(np.float64))
    numerator_MxR, denominator_MxR = np.concatenate(sums, axis=2).swapaxes(0, 1)
    enough_M = np.count_nonzero(sums_Mx2xP[:, 1], axis=1) >= least
    defined_MxR = (denominator_MxR != 0) & enough_M[:, None]
    return np.divide(numerator_MxR, denominator_MxR, out=np.full_like(numerator_MxR, np.nan), where=defined_MxR)


def _gap(draws_of: Mapping[str, np.ndarray], confidence: float) -> Gap | None:
    """The gap between the groups with the largest and the smallest value, from the value and the draws of each."""
    order = sorted((draws[0], name) for name, draws in draws_of.items() if np.isfinite(draws[0]))
    if len(order) < 2:
        return None
    (_, below), (_, above) = order[0], order[-1]
    size = _estimate(draws_of[above] - draws_of[below], confidence)
    return None if size is None else Gap(above, below, size)


def _estimate(draws: np.ndarray, confidence: float) -> Estimate | None:
    """The value, which is the first, with the interval of the draws behind it; draws that are NaN are left out."""
    value = draws[0]
    known = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(value), float(low), float(high))


def tables(result: Audit) -> dict[str, list[list[str]]]:
    """For each column of the table a row per group: its name, people, queries, and each of `result.measures`."""
    return {
        column.name: [
            [group.name, f"{group.people:,}", f"{group.queries:,}", *(str(v or "-") for v in group.values.values())]
            for group in column.groups
        ]
        for column in result.columns
    }


def notes(result: Audit) -> list[str]:
    """What the tables do not say by themselves: gaps, who is not in them, and what must not be concluded."""
    lines = [line for column in result.columns for line in _column_notes(column, result)]
    estimates = [value for column in result.columns for group in column.groups for value in group.values.values()]
    if any(estimates):
        lines.append(f"In brackets: {100 * result.confidence:g} % intervals, from {result.rounds:,} draws of people.")
    if any(each and each.high - each.low < 1e-9 for each in estimates):
        lines.append("An interval without width says that these people score alike, not that others would.")
    if result.unknown:
        lines.append(f"People of the table whom no query shows: {result.unknown:,}.")
    if any(column.missing or column.small_groups for column in result.columns):
        unseen = "those whom the table does not show, or who are left out,"
        lines.append(f"A disparity among {unseen} cannot be seen here and cannot be ruled out.")
    return lines


def _column_notes(column: Column, result: Audit) -> list[str]:
    lines = []
    pairs = len(column.groups) * (len(column.groups) - 1) // 2
    for measure, gap in column.gaps.items():
        if gap is None:
            continue
        picked = f", picked as the largest of {pairs:,} gaps" if pairs > 1 else ""
        chance = "; it may be chance, for the interval holds 0" if gap.size.low <= 0 else ""
        lines.append(f"{column.name}, {measure}: {gap.above} is above {gap.below} by {gap.size}{picked}{chance}.")
    if not pairs:
        least = f"{result.min_group:,} people"
        lines.append(f"{column.name}: fewer than two groups of at least {least}; nothing to compare.")
    elif lacking := [measure for measure, gap in column.gaps.items() if gap is None]:
        lines.append(f"{column.name}: fewer than two groups have enough people for {', '.join(lacking)}.")
    if column.small_groups:
        small = f"{column.small_groups:,}, with {column.small_people:,} people in all"
        lines.append(f"{column.name}: groups left out for fewer than {result.min_group:,} people: {small}.")
    if column.missing:
        lines.append(f"{column.name}: people without a group in the table: {column.missing:,} of {result.people:,}.")
    return lines


def as_json(result: Audit) -> dict[str, Any]:
    """The same figures for machines."""
    return asdict(result)
