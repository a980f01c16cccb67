#!/bin/bash
# Started by harmonic-install.service, which also gives the variables (/etc/default/harmonic-installer): fetches the vendor's
# newest ISO from $apolloURL and writes it to $physicalDisk. The vendor's own ostree-production does that where it is
# installed; else the disk becomes the ISO, byte for byte. The disk may be the one that this system runs from: then the ISO
# waits in memory, and nothing of the old system is left in use while it is written.
set -euo pipefail

isoDir=/data
work=/run/harmonic-installer
done_file=/var/lib/harmonic-installer/done

say() { echo "harmonic-installer: $*"; }
fail() { say "$*"; exit 1; }

show_help() {
    cat << EOF
Usage: $0 [-v] [-p] -i
  -i  fetch the ISO and write it to ${physicalDisk:-the disk}; must be given, as the disk loses what is on it
  -p  accepted as before: the proxies of the environment count anyway
  -v  show every command
  -h  show this
EOF
}

# Fetch the URL $1 to the file $2.
fetch() {
    if command -v curl > /dev/null; then
        curl --fail --location --silent --show-error --retry 20 --retry-delay 3 --retry-connrefused --output "$2" "$1"
    elif command -v wget > /dev/null; then
        wget --no-verbose --tries 20 --waitretry 3 --retry-connrefused --output-document "$2" "$1"
    elif command -v busybox > /dev/null; then
        local tries
        for tries in {1..20}; do
            busybox wget -q -O "$2" "$1" && return
            sleep 3
        done
        return 1
    else
        fail "neither curl nor wget nor busybox is here"
    fi
}

# Compare the file $1 with $apolloURL.sha256, where the server has that.
check_sum() {
    local expected actual
    if ! fetch_sum "$work/sum"; then
        say "the server has no $apolloURL.sha256, so nothing is compared"
        return
    fi
    expected=$(cut -d ' ' -f 1 "$work/sum")
    actual=$(sha256sum "$1" | cut -d ' ' -f 1)
    [[ $expected == "$actual" ]] || fail "the SHA-256 of the ISO is $actual, and the server says $expected"
    say "SHA-256 $actual, as the server says"
}

# Fetch the checksum to the file $1, in one attempt: a server need not have it.
fetch_sum() {
    if command -v curl > /dev/null; then
        curl --fail --location --silent --output "$1" "$apolloURL.sha256"
    elif command -v wget > /dev/null; then
        wget --quiet --tries 1 --output-document "$1" "$apolloURL.sha256"
    else
        busybox wget -q -O "$1" "$apolloURL.sha256" 2> /dev/null
    fi
}

# Tell whether the root file system lies on the disk $1, directly or through a partition, LVM or RAID.
holds_root() {
    local number root
    number=$(findmnt --noheadings --output MAJ:MIN --target / | tr -d ' ')
    if [[ -e /sys/dev/block/$number ]]; then
        root=/dev/$(basename "$(readlink -f "/sys/dev/block/$number")")
    else    # of btrfs the device's name alone is known
        root=$(findmnt --noheadings --nofsroot --output SOURCE --target /)
    fi
    [[ -b $root ]] || return 1
    # grep reads to the end, or lsblk would be killed by a broken pipe, and that is an error here.
    lsblk --noheadings --list --inverse --paths --output NAME "$root" | grep -Fx "$(readlink -f "$1")" > /dev/null
}

# Give the disk free: nothing on it stays mounted, in use as swap, or part of LVM.
release_disk() {
    local name kind mount
    while read -r name kind mount; do
        if [[ $mount == "[SWAP]" ]]; then
            swapoff "$name"
        elif [[ -n $mount ]]; then
            umount "$(printf '%b' "$mount")"
        fi
        if [[ $kind == lvm ]]; then
            lvchange --activate n "$name"
        fi
    done < <(lsblk --noheadings --raw --paths --output NAME,TYPE,MOUNTPOINT "$1" | tac)
    wipefs --all --force --quiet "$1"
}

# Check that the disk $2 can hold the file $1.
check_size() {
    local size room
    size=$(stat --format=%s "$1")
    room=$(blockdev --getsize64 "$2")
    ((size <= room)) || fail "$2 has $room bytes, and the ISO has $size"
}

# Write the ISO $1 to the disk $2, which this system does not run from.
write_disk() {
    release_disk "$2"
    dd if="$1" of="$2" bs=4M conv=fsync status=none
    cmp --bytes="$(stat --format=%s "$1")" "$1" "$2"
}

# Write the ISO $1 to the disk $2, which this system runs from, and start the machine anew: nothing can end in good order.
# The programs of the end and their libraries are copied into memory. Frozen file systems have no bytes left to write, and
# stopped programs make none that meet the new bytes in place of the old, so that nothing comes over the ISO.
replace_system() {
    local tools=$work/tools program library loader
    mkdir -p "$tools"
    for program in bash dd; do
        cp "$(command -v "$program")" "$tools/"
        while read -r library; do
            cp --update "$library" "$tools/"
        done < <(ldd "$(command -v "$program")" | grep -o '/[^ ]*')
    done
    loader=$(find "$tools" -name 'ld-linux*' -o -name 'ld64.so*' | head -n 1)
    cat > "$work/write" << EOF
kill -STOP -1
"$loader" --library-path "$tools" "$tools/dd" if="$1" of="$2" bs=4M conv=fsync status=none
echo "harmonic-installer: $2 is written" > /dev/console
echo b > /proc/sysrq-trigger
EOF
    say "writing to $2, which this system runs from; the machine starts anew"
    freeze_disk "$2"
    exec "$loader" --library-path "$tools" "$tools/bash" "$work/write"
}

# Unmount what can be unmounted of the disk $1, and freeze the rest, the root file system last.
freeze_disk() {
    local name mount
    while read -r name mount; do
        if [[ $mount == "[SWAP]" ]]; then
            swapoff "$name"
        elif [[ -n $mount && $mount != / ]]; then
            mount=$(printf '%b' "$mount")
            umount "$mount" 2> /dev/null || fsfreeze --freeze "$mount"
        fi
    done < <(lsblk --noheadings --raw --paths --output NAME,MOUNTPOINT "$1" | tac)
    fsfreeze --freeze /
}

install_iso() {
    local iso in_place=no
    [[ -n ${apolloURL:-} ]] || fail "apolloURL is not set"
    [[ -b ${physicalDisk:-} ]] || fail "there is no disk ${physicalDisk:-}; these are: $(lsblk --nodeps --noheadings --output NAME | xargs)"
    if holds_root "$physicalDisk"; then
        in_place=yes
    fi
    mkdir -p "$work"
    mountpoint --quiet "$work" || mount -t tmpfs -o mode=0700,size=90% tmpfs "$work"
    iso=$work/apollo.iso
    if [[ $in_place == no ]]; then
        mkdir -p "$isoDir"
        iso=$isoDir/apollo.iso
    fi
    say "fetching $apolloURL"
    fetch "$apolloURL" "$iso" || fail "$apolloURL cannot be fetched"
    check_sum "$iso"
    check_size "$iso" "$physicalDisk"
    if command -v ostree-production > /dev/null; then
        say "ostree-production installs $iso to $physicalDisk"
        ostree-production list-isos
        # It asks; yes ends with SIGPIPE, which is no failure.
        { yes || true; } | ostree-production -D "$physicalDisk" from "$iso"
    elif [[ $in_place == yes ]]; then
        replace_system "$iso" "$physicalDisk"
    else
        say "writing $(stat --format=%s "$iso") bytes to $physicalDisk"
        write_disk "$iso" "$physicalDisk"
    fi
    mkdir -p "${done_file%/*}"
    : > "$done_file"
    say "done"
    if [[ ${REBOOT:-no} == yes ]]; then
        systemctl reboot
    fi
}

wants_install=no
while getopts "hvpi" option; do
    case $option in
        h) show_help; exit 0 ;;
        v) set -xv ;;
        p) ;;
        i) wants_install=yes ;;
        *) show_help; exit 1 ;;
    esac
done
# An empty proxy is none.
for name in http_proxy https_proxy no_proxy; do
    [[ -n ${!name:-} ]] || unset "$name"
done
if [[ $wants_install == no ]]; then
    show_help
    exit 1
fi
install_iso
