"""Progress of long work: a bar with rate and time left on stderr, which stays silent where that is no terminal.

Work that takes long has an argument `progress`, which it calls with the number of further items that are done. Work of
several parts has an argument `bar`, with which it opens a bar for each of them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich import console as rich_console
from rich import progress as rich_progress
from rich.text import Text

#: Called with the number of further items that are done.
Progress = Callable[[int], object]
#: Opens a bar for so many items of a name; what is yielded moves it.
ProgressBar = Callable[[str, int], AbstractContextManager[Progress]]


class Console(rich_console.Console):
    """Where tables are printed. A pipe that nobody reads any more is left to `cli.main`, which knows how to end."""

    def on_broken_pipe(self) -> None:
        """Do not end the process from here."""
        raise BrokenPipeError


def no_progress(items: int) -> None:
    """Show nothing."""


@contextmanager
def progress_bar(name: str, total: int) -> Iterator[Progress]:
    """Show a bar while work of so many items lasts."""
    console = Console(stderr=True)
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        _Rate(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda items: bar.advance(task, items)


class _Rate(rich_progress.ProgressColumn):
    def render(self, task: rich_progress.Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")
