#!/bin/bash
# Installs Arch Linux on the first disk, which loses all that was on it.
set -euo pipefail
disk=/dev/vda
[ -b "$disk" ] || disk=/dev/sda

sfdisk --label gpt "$disk" <<'TABLE'
size=1GiB, type=uefi
type=linux
TABLE
udevadm settle
mkfs.fat -F 32 "$disk"1
mkfs.ext4 -q "$disk"2
mount "$disk"2 /mnt
mount --mkdir "$disk"1 /mnt/boot

pacstrap -K /mnt base linux openssh
genfstab -U /mnt >> /mnt/etc/fstab
echo '${SITE}' > /mnt/etc/hostname
arch-chroot /mnt bootctl install
root=$(findmnt -no UUID /mnt)
cat > /mnt/boot/loader/entries/arch.conf <<ENTRY
title Arch Linux
linux /vmlinuz-linux
initrd /initramfs-linux.img
options root=UUID=$root rw
ENTRY
arch-chroot /mnt systemctl enable sshd systemd-networkd systemd-resolved
printf '[Match]\nType=ether\n[Network]\nDHCP=yes\n' > /mnt/etc/systemd/network/20-wired.network
reboot
