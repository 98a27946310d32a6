"""What a user should know of work that goes on: lines on stderr."""

import sys


def say(line: str) -> None:
    """Print a line."""
    print(line, file=sys.stderr)


def say_left_out(place: object, count: int, what: str) -> None:
    """Say how many of something are left out, and why, if there are any; a single one is still named by the plural."""
    if count:
        say(f"{place}: left out {count:,} {what}")
