"""Run the command line with ``python -m phasesam``."""

from phasesam.cli import main

if __name__ == "__main__":
    main()
