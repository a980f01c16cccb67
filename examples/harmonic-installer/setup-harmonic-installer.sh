#!/bin/sh
# Completes the image on the machine, before harmonic-installer.sh: installs the .deb files in the folder $1, which bring the
# vendor's own installer, and sets the password of the user in the file $2, which is removed then. Started again it does
# nothing a second time.
set -eu

packages=${1:-/opt/harmonic-installer/packages}
credentials=${2:-/etc/harmonic-installer/credentials}

set --
for package in "$packages"/*.deb; do
    [ -f "$package" ] || continue
    name=$(dpkg-deb --field "$package" Package)
    version=$(dpkg-deb --field "$package" Version)
    installed=$(dpkg-query --show --showformat='${db:Status-Status} ${Version}' "$name" 2>/dev/null || true)
    [ "$installed" = "installed $version" ] || set -- "$@" "$package"
done
if [ "$#" -gt 0 ]; then
    echo "setup-harmonic-installer: installing $*"
    DEBIAN_FRONTEND=noninteractive dpkg --install "$@"    # all at once, so that their order does not matter
fi

if [ -s "$credentials" ]; then
    user=$(cut -d : -f 1 "$credentials")
    id "$user" > /dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    chpasswd < "$credentials"
    rm "$credentials"
    echo "setup-harmonic-installer: $user has a password"
fi
