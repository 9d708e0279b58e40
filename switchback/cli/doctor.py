"""`doctor`: what is reachable, and what is misconfigured."""

from __future__ import annotations

import msgspec

from switchback.cli.application import DONE, FAILED, app
from switchback.cli.output import errors, print_json, print_rows
from switchback.cli.target import AsJson, DataDir, check_there, settings_of
from switchback.diagnosis import diagnose
from switchback.servers import reach_servers


@app.command
async def doctor(*, data_dir: DataDir = None, as_json: AsJson = False) -> int:
    """Ask every part how it is. Fails if anything is wrong."""
    settings = settings_of(data_dir)
    check_there(settings)
    with errors.status("asking"):
        async with reach_servers(settings) as addresses:
            findings = [finding async for finding in diagnose(settings, addresses)]
    rows = [msgspec.to_builtins(finding) for finding in findings]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("part", "state", "position", "subject", "detail"), title="Doctor")
    return FAILED if any(finding.state == "wrong" for finding in findings) else DONE
