#!/bin/sh
# Installs the real tools that the tests judge by, where this user may; says plainly what is left out where not.
# In CI a failure to install is a failure: the tests would fail for the missing tools anyway, later and longer.
cd "$(dirname "$0")/.." || exit 1
packages=$(python3 -m tests.fixtures.tools) || exit 1

installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

any_installed() { # of the names of one package, each of another release: libudfread0|libudfread3
    for name in $(echo "$1" | tr '|' ' '); do
        installed "$name" && return 0
    done
    return 1
}

offered() { # the first of those names that apt can install
    for name in $(echo "$1" | tr '|' ' '); do
        apt-cache policy "$name" | grep -q '^  Candidate: [^(]' && echo "$name" && return
    done
}

still_missing() {
    missing=""
    for package in $packages; do
        any_installed "$package" || missing="$missing $package"
    done
}

install() {
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

still_missing
[ -z "$missing" ] && exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null && { [ -z "$as_root" ] || $as_root true 2>/dev/null; }; then
    echo "installing with apt:$missing"
    $as_root apt-get update -qq
    wanted=""
    for package in $missing; do
        wanted="$wanted $(offered "$package")"
    done
    # shellcheck disable=SC2086
    if [ -n "${wanted# }" ] && ! install $wanted; then
        # Where a single package has no candidate or a conflict, as in a release that is being made, the others still come.
        for package in $wanted; do
            install "$package"
        done
    fi
    still_missing
    [ -z "$missing" ] && exit 0
fi
echo "These Debian packages are not installed and cannot be installed here:$missing"
echo "The tests that need them are skipped, each by name."
[ "${CI:-}" = true ] && exit 1
exit 0
