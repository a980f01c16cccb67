#!/bin/sh
# Started by apollo-install.service. Runs the steps in /root/install.d in the order of their names; each finds the
# platform image in $PLATFORM. A step that fails ends the installation, and the next start begins anew.
set -eu

PLATFORM=/data/apollo-platform.iso
export PLATFORM
done_file=/var/lib/apollo-install/done

if [ ! -s "$PLATFORM" ]; then
    echo "apollo-install: there is no $PLATFORM"
    exit 1
fi
echo "apollo-install: installing $(sha256sum "$PLATFORM" | cut -d ' ' -f 1)"
for step in /root/install.d/*; do
    [ -x "$step" ] || continue
    echo "apollo-install: ${step##*/}"
    "$step"
done
mkdir -p "${done_file%/*}"
: > "$done_file"
echo "apollo-install: done"
