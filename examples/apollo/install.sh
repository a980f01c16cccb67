#!/bin/sh
# Started by apollo-install.service. Finds the medium that the machine booted from by the platform image on it, and runs the
# steps in /root/install.d in the order of their names; each finds that image in $PLATFORM. A step that fails ends the
# installation, and the next start begins anew.
set -eu

medium=/run/apollo-medium
PLATFORM=$medium/data/apollo-platform.iso
export PLATFORM
done_file=/var/lib/apollo-install/done

mkdir -p "$medium"
tries=0
while [ ! -s "$PLATFORM" ] && [ "$tries" -lt 30 ]; do    # a USB stick may come late
    for device in /sys/class/block/*; do
        mount -t iso9660 -o ro "/dev/${device##*/}" "$medium" 2>/dev/null || continue
        [ -s "$PLATFORM" ] && break
        umount "$medium"
    done
    [ -s "$PLATFORM" ] || sleep 1
    tries=$((tries + 1))
done
if [ ! -s "$PLATFORM" ]; then
    echo "apollo-install: no medium has ${PLATFORM#"$medium"}"
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
