"""How the processes of one job find each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hosts:
    """How the processes of one job find each other; under Slurm, Open MPI and on GKE they do by themselves."""

    coordinator: str | None = None
    """HOST:PORT at which the first process can be reached by all; give it to all of them."""
    processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """Which of them this one is, from 0."""
    join: bool = False
    """Look for others though the environment tells of none, as on a slice of Cloud TPUs."""
    join_timeout: int = 300
    """Seconds to wait for the others; who has not come by then is named, and all end."""
