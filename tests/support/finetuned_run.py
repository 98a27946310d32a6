"""`cion` with the toy network in its zoo, in a process of its own.

    python tests/support/finetuned_run.py PLAN COMMAND...

PLAN is a JSON object:
    killed     the step after which the process, if it keeps no journal, kills itself
    without    a module that it does not have
"""

import json
import os
import signal
import sys
from typing import Any

import pytest

from cion_jax.run.journal import Silence
from finetuned import cion, stand_in


def kill_after(number: int) -> None:
    def recording(journal: Silence, step: int, *rest: Any) -> None:
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Silence.record = recording  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    plan, command = json.loads(sys.argv[1]), sys.argv[2:]
    if "killed" in plan:
        kill_after(plan["killed"])
    if "without" in plan:
        sys.modules[plan["without"]] = None  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        sys.exit(cion(*command))
