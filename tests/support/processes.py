"""What tests of runs in processes of their own share."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cion_jax.run.journal import read_metrics

#: Seconds after which a process hangs for certain, however slow the machine is.
HANGS = 900
#: What a step's line in metrics.jsonl has of the clock.
CLOCK = {"time", "images_per_second", "waiting"}


def surroundings(cache: Path, devices: int) -> dict[str, str]:
    """The environment of a process with so many devices; all with this cache share what they compile."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"  # bits are those of tests
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return os.environ | compiled | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def free_address() -> str:
    """Where the processes of a job can meet; where they cannot, the test is skipped."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        try:
            socket.create_connection(listener.getsockname(), timeout=5).close()
        except OSError as error:
            pytest.skip(f"processes cannot talk to each other here: {error}")
        return "127.0.0.1:{1}".format(*listener.getsockname())


def start(command: list[str], cache: Path, devices: int = 1) -> subprocess.Popen[str]:
    """A process that runs Python with this command, with so many devices."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", *command],
        env=surroundings(cache, devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """The exit code of each, and what it said."""
    outputs = [process.communicate(timeout=HANGS)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, outputs, strict=True)]


def steps(out: Path) -> list[dict[str, Any]]:
    """A run's journal without the clock."""
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in read_metrics(out / "metrics.jsonl")]


def python(code: str, *arguments: Path, **environment: str) -> int:
    """Run code in a process of its own that can import the tests; its exit code."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment).returncode
