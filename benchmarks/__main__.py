"""All comparisons, one after the other: ``python -m benchmarks [--quick]``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from benchmarks.reference import ROOT

COMPARISONS = {
    "prompts": ["benchmarks.prompts"],
    "encoder": ["benchmarks.encoder", "--encoder", "vit_b"],
    "automatic": ["benchmarks.automatic", "--images", "5", "--quality"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(COMPARISONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="one image for the automatic masks")
    parser.add_argument("--micro-sam", metavar="PYTHON", help="interpreter that has micro-sam")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.only) - set(COMPARISONS))
    if unknown:
        parser.error(f"unknown comparisons {unknown}; known are {sorted(COMPARISONS)}")
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    failed = []
    for name in arguments.only or COMPARISONS:
        command = list(COMPARISONS[name])
        if arguments.quick and name == "automatic":
            command = ["benchmarks.automatic"]
        if arguments.micro_sam and name == "automatic":
            command += ["--micro-sam", arguments.micro_sam]
        code = subprocess.call([sys.executable, "-m", *command], cwd=ROOT, env=environment)
        if code:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
