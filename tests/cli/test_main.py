from __future__ import annotations

import os
import subprocess
import sys

import pytest

import phasesam


@pytest.mark.parametrize(
    "command", [["-m", "phasesam"], ["-c", "import phasesam.cli as c; c.main()"]]
)
def test_version(command):
    run = subprocess.run(
        [sys.executable, *command, "--version"], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout.strip()) == (0, f"phasesam {phasesam.__version__}")


def test_no_arguments_show_the_help():
    run = subprocess.run(
        [sys.executable, "-m", "phasesam"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert "segment" in run.stdout + run.stderr


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise(given, policy):
    code = (
        "import os, sys, phasesam.cli\n"
        "sys.argv = ['phasesam', '--version']\n"
        "try:\n    phasesam.cli.main()\nexcept SystemExit:\n    pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert run.stdout.split()[-2:] == [policy, "False"]
