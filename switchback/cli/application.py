"""The application that every verb is registered with, and how it ends.

Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 130 interrupted. What a verb prints for
programs goes to standard output; progress and problems go to standard error.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

import uvloop
from cyclopts import App, CycloptsError

from switchback.cli.failures import sentences
from switchback.cli.output import console, errors, print_problem
from switchback.logs import configure_logs

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130

app: Final = App(
    name="switchback",
    help="An event-sourced control plane and gateway for model versions.",
    version=version("switchback"),
    console=console,
    error_console=errors,
)


def run_verb(arguments: Sequence[str]) -> int:
    """One verb; its exit code. The module that registers it must have been imported."""
    try:
        verb, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        print_problem(f"{' '.join(str(error).split())} See `switchback --help`.")
        return MISUSED
    configure_logs(logging.CRITICAL)
    return _ended(lambda: _result(verb, bound))


def _result(verb: Callable[..., Any], bound: inspect.BoundArguments) -> Any:
    result = verb(*bound.args, **bound.kwargs)
    return uvloop.run(result) if inspect.iscoroutine(result) else result


def _ended(work: Callable[[], Any]) -> int:
    try:
        result = work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return DONE  # whoever read has enough
    except Exception as error:
        for sentence in sentences(error):
            print_problem(sentence)
        return FAILED
    return result if isinstance(result, int) else DONE
