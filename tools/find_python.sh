#!/usr/bin/env bash
# Print the Python to build the environment with: $PYTHON, else the newest supported one.
set -euo pipefail

supported='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
usable() { "$1" -c "$supported" >/dev/null 2>&1; }

if [ -n "${PYTHON:-}" ]; then
    if usable "$PYTHON"; then
        command -v "$PYTHON"
        exit 0
    fi
    echo "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13." >&2
    exit 1
fi

candidates=(python3.13 python3.12 python3.11 python3 python)
# One that can make environments comes before one that needs a package for it.
for probe in 'import ensurepip, venv' 'pass'; do
    for name in "${candidates[@]}"; do
        if usable "$name" && "$name" -c "$probe" >/dev/null 2>&1; then
            command -v "$name"
            exit 0
        fi
    done
done

cat >&2 <<'MESSAGE'
PhaseSAM needs Python 3.11, 3.12 or 3.13, and none was found on the PATH.
  Debian 12 or newer:    sudo apt-get install python3 python3-venv
  Ubuntu 24.04 or newer: sudo apt-get install python3 python3-venv
  Ubuntu 22.04:          sudo apt-get install python3.11 python3.11-venv
Another interpreter can be named:  PYTHON=/path/to/python3.12 make test
MESSAGE
exit 1
