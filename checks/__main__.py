"""Kills long commands and feeds hostile files to the program, for some minutes.

Prints a table of each, and as the last line a JSON object; exits with 1 if anything was lost,
executed, different or ended otherwise than it should.

Example:
  python -m checks --minutes=30
"""

import argparse
import json
import pathlib
import sys
import tempfile

from checks import hostile, kills

_SHARE_OF_KILLS = 0.7
_LEAST_INPUTS = 10_000


def main() -> int:
    """Runs both, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m checks")
    parser.add_argument("--minutes", type=float, default=30.0, help="for both together")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument(
        "--least_inputs", type=int, default=_LEAST_INPUTS, help="even if it is late"
    )
    flags = parser.parse_args()
    seconds = 60 * flags.minutes
    with tempfile.TemporaryDirectory() as folder:
        killed = kills.run_kills(
            pathlib.Path(folder), seed=flags.seed, seconds=_SHARE_OF_KILLS * seconds
        )
    kills.print_report(killed)
    fed = hostile.run_inputs(
        seed=flags.seed, seconds=(1 - _SHARE_OF_KILLS) * seconds, least=flags.least_inputs
    )
    hostile.print_report(fed)
    faults = [fault.kind for fault in (*killed.faults, *fed.faults)]
    counts = {kind: faults.count(kind) for kind in ("tracebacks", "executed", "lost", "different")}
    totals = {
        "kills": len(killed.kills),
        "resumed_identical": len(killed.identical),
        "mutated": fed.outcomes.total(),
    }
    print(json.dumps(totals | counts))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
