#!/bin/sh
# Installs the real tools that the tests judge by, where this user may; says plainly what is left out where not.
# In CI a failure to install is a failure: the tests would fail for the missing tools anyway, later and longer.
cd "$(dirname "$0")/.." || exit 1
packages=$(python3 -m tests.fixtures.tools) || exit 1
missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null && { [ -z "$as_root" ] || $as_root true 2>/dev/null; }; then
    echo "installing with apt:$missing"
    # shellcheck disable=SC2086
    if $as_root apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
fi
echo "These Debian packages are not installed and cannot be installed here:$missing"
echo "The tests that need them are skipped, each by name."
[ "${CI:-}" = true ] && exit 1
exit 0
