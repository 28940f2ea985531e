"""`python -m bench [--full] [name ...]`: measures, prints the table, writes RESULTS.md.

Names: see `PARTS`; without any, all of them. About seven minutes; --full measures three times as
long. RESULTS.md is written only when everything was measured.
"""

import argparse

from . import files, gateway, initial, jobs, live, results, signal, writes
from .stage import Say, stage

PARTS = {
    "apply": writes.apply,
    "several": writes.several,
    "gateway": gateway.writes,
    "initial": initial.load,
    "bulk": writes.bulk,
    "signal": signal.plain,
    "fanout": live.fanout,
    "latency": live.latency,
    "revocation": live.revocation,
    "storm": live.storm,
    "idle": live.idle,
    "catchup": live.catch_up,
    "files": files.transfer,
    "ends": live.ends,
    "rotation": live.rotation,
    "poison": jobs.poison,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Speed beside the raw limits.")
    parser.add_argument("--full", action="store_true", help="three times as long")
    parser.add_argument("names", nargs="*", help=", ".join(PARTS))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - PARTS.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    say = Say()
    figures: list[results.Figure] = []
    with stage(say) as place:
        for name, part in PARTS.items():
            if not arguments.names or name in arguments.names:
                figures += part(place, say, 3 if arguments.full else 1)
        postgres = place.postgres
    print("\n".join(results.table(figures)))
    if not arguments.names:
        import time

        mode = "full mode" if arguments.full else "quiet mode"
        path = results.write(figures, postgres, mode, time.monotonic() - say.started)
        print(f"\nwritten to {path}")


main()
