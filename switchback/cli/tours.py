"""`demo` and `bench`: what the system does, shown and measured."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from switchback import bench as benches
from switchback import demo as demos
from switchback.cli.application import DONE, FAILED, app
from switchback.cli.output import console, errors, print_json, print_problem
from switchback.cli.target import AsJson, DataDir, settings_of


@app.command
def demo() -> int:
    """A guided tour on real models and real traffic; ends by itself."""
    return DONE if demos.run() else FAILED


@app.command
def bench(
    *lines: Annotated[str, Parameter(help=f"Any of {', '.join(benches.LINES)}; all.")],
    quick: Annotated[bool, Parameter(negative="", help="Small sizes, rough figures.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> int:
    """Measure this machine: ours, the ceiling of its servers, the ratio."""
    directory: Path = settings_of(data_dir).data_dir / "bench"
    sizes = benches.QUICK if quick else benches.FULL
    with errors.status("measuring") as status:
        report = asyncio.run(
            benches.run(
                lines,
                directory=directory,
                sizes=sizes,
                begun=lambda line: status.update(f"measuring {line}"),
            )
        )
    if as_json:
        print_json(report)
    else:
        console.print(benches.table(report))
    if not report.reached:
        print_problem("not every goal was reached")
        return FAILED
    return DONE
