#!/usr/bin/env bash
# Make the virtual environment and install PhaseSAM into it.
#
#   tools/setup_environment.sh base     library and command line
#   tools/setup_environment.sh viewer   and napari with a Qt binding
#   tools/setup_environment.sh test     and what the tests need, with a virtual display
#   tools/setup_environment.sh dev      and the tools of `make check` and `make wheel`
#
# Environment variables:
#   VENV             where the environment goes                      (.venv)
#   PYTHON           the interpreter to make it with                 (newest of 3.11-3.13)
#   TORCH_INDEX      package index for torch and torchvision, for instance
#                    https://download.pytorch.org/whl/cpu            (pip's own settings)
#   PHASESAM_NO_APT  set it to leave the system's packages alone
#   PHASESAM_SKIP_GUI  set it to go on when libraries for windows are missing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/system_packages.sh
source tools/system_packages.sh

profile=${1:-test}
venv=${VENV:-.venv}
case $profile in
    base) target=. ;;
    viewer) target='.[all]' ;;
    test) target='.[all,test]' ;;
    dev) target='.[all,test,dev]' ;;
    *)
        echo "unknown profile '$profile': expected base, viewer, test or dev" >&2
        exit 2
        ;;
esac

prepare_system() {
    case $profile in
        base) return 0 ;;
        viewer)
            # The segmentation itself needs no window: go on without.
            ensure_packages || echo "Going on; napari may not open." >&2
            ;;
        *)
            if ! ensure_packages --virtual-display && [ -z "${PHASESAM_SKIP_GUI:-}" ]; then
                echo "To run everything but the window tests: PHASESAM_SKIP_GUI=1 make test" >&2
                exit 1
            fi
            ;;
    esac
}

create_environment() {
    if [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        return 0
    fi
    local python version
    python=$(tools/find_python.sh)
    version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
    echo "Making $venv with Python $version ($python)"
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        if ! apt_install "python$version-venv" && ! apt_install python3-venv; then
            echo "This Python cannot make virtual environments. On Debian and Ubuntu:" >&2
            echo "    sudo apt-get install python$version-venv" >&2
            exit 1
        fi
    fi
    "$python" -m venv --clear "$venv"
}

# torch for CUDA is large: say so where it is not needed or does not fit.
advise_on_torch() {
    "$venv/bin/python" -c 'import torch' >/dev/null 2>&1 && return 0
    [ -z "${TORCH_INDEX:-}" ] && [ "$(uname -s)" = Linux ] || return 0
    local free_gb cpu_index=https://download.pytorch.org/whl/cpu
    free_gb=$(df -Pk "$venv" | awk 'NR == 2 {print int($4 / 1048576)}')
    if [ "$free_gb" -lt 9 ]; then
        echo "Only $free_gb GB are free, and torch with CUDA takes about 7 GB." >&2
        echo "The build without CUDA takes 1 GB: TORCH_INDEX=$cpu_index" >&2
    elif ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
        echo "No NVIDIA GPU seen; TORCH_INDEX=$cpu_index would save 6 GB."
    fi
}

pip_install() {
    local attempt options=(--disable-pip-version-check --retries 5 --timeout 60)
    # Somebody who watches wants to see that something happens; a log does not.
    [ -t 1 ] || options+=(--quiet)
    for attempt in 1 2 3; do
        "$venv/bin/python" -m pip install "${options[@]}" "$@" && return 0
        echo "pip failed (attempt $attempt of 3)" >&2
        sleep $((attempt * 3))
    done
    echo "The packages could not be installed; see pip's message above." >&2
    return 1
}

prepare_system
create_environment
advise_on_torch
echo "Installing PhaseSAM ($target); the first time takes some minutes"
if [ -n "${TORCH_INDEX:-}" ]; then
    # Both from one index: a torch of one build beside a torchvision of another breaks.
    pip_install --index-url "$TORCH_INDEX" torch torchvision
fi
pip_install --editable "$target"
"$venv/bin/python" tools/verify_environment.py "$profile"
touch "$venv/.ready-$profile"
