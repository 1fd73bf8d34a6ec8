# System libraries for Qt, OpenGL and the virtual display on Debian and Ubuntu.
# Sourced by setup_environment.sh.
# shellcheck shell=bash

# Library (as the linker knows it) and the package it comes in.
qt_libraries=(
    libGL.so.1:libgl1
    libEGL.so.1:libegl1
    libdbus-1.so.3:libdbus-1-3
    libglib-2.0.so.0:libglib2.0-0
    libfontconfig.so.1:libfontconfig1
    libxkbcommon.so.0:libxkbcommon0
    libxkbcommon-x11.so.0:libxkbcommon-x11-0
    libxcb-cursor.so.0:libxcb-cursor0
    libxcb-icccm.so.4:libxcb-icccm4
    libxcb-keysyms.so.1:libxcb-keysyms1
    libxcb-shape.so.0:libxcb-shape0
    libxcb-xkb.so.1:libxcb-xkb1
)

# Print the packages that are missing; "--virtual-display" asks for Xvfb as well.
missing_packages() {
    local known entry
    # Without a linker cache (musl, Nix) nothing can be said; Qt itself will complain.
    known=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null) || return 0
    for entry in "${qt_libraries[@]}"; do
        grep -qF "${entry%%:*} " <<<"$known" || echo "${entry##*:}"
    done
    # Mesa's software renderer, under its old and its new name.
    compgen -G '/usr/lib*/*/dri/swrast_dri.so' >/dev/null ||
        compgen -G '/usr/lib*/dri/swrast_dri.so' >/dev/null ||
        compgen -G '/usr/lib*/*/libgallium*.so' >/dev/null ||
        compgen -G '/usr/lib*/libgallium*.so' >/dev/null || echo libgl1-mesa-dri
    if [ "${1:-}" = --virtual-display ]; then
        command -v Xvfb >/dev/null || echo xvfb
        command -v xauth >/dev/null || echo xauth
    fi
}

# Install packages with apt when that needs no password; fails otherwise.
apt_install() {
    [ -z "${PHASESAM_NO_APT:-}" ] && command -v apt-get >/dev/null || return 1
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    echo "Installing system packages: $*"
    "${as_root[@]}" apt-get update -qq || true
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Install what is missing, or say what to install. Returns 1 when something stays missing.
ensure_packages() {
    [ "$(uname -s)" = Linux ] || return 0
    local packages
    read -r -a packages <<<"$(missing_packages "$@" | tr '\n' ' ')"
    [ ${#packages[@]} -gt 0 ] || return 0
    apt_install "${packages[@]}" || true
    read -r -a packages <<<"$(missing_packages "$@" | tr '\n' ' ')"
    [ ${#packages[@]} -gt 0 ] || return 0
    cat >&2 <<MESSAGE

System libraries for windows are missing, and they cannot be installed from here
(no root, no password-free sudo, or no apt). On Debian and Ubuntu:

    sudo apt-get update && sudo apt-get install --no-install-recommends ${packages[*]}

On other systems install the packages that bring the same libraries.
MESSAGE
    return 1
}
