# The page's seven steps: steps.sh ISO OVERLAY [COMMAND in a chroot], in an empty folder; makes out.iso. Device nodes need root or fakeroot.
set -e
iso=$1
overlay=$2
command=$3
7z x -y -odisc "$iso" > /dev/null
rm -rf 'disc/[BOOT]'
chmod -R u+w disc
cgz=$(cd disc && echo debirf-live*.cgz)
mkdir -p outer/root
(cd outer && zcat "../disc/$cgz" | cpio -idm --quiet)
(cd outer/root && xzcat ../rootfs.cxz | cpio -idm --quiet)
cp -a "$overlay/." outer/root/
[ -z "$command" ] || chroot outer/root sh -ec "$command"
(cd outer/root && find . | cpio -o -H newc --quiet | xz -T0 > ../../rootfs.cxz)
rm -rf outer/root
mv rootfs.cxz outer/
(cd outer && find . | cpio -o -H newc --quiet | gzip -6 > "../disc/$cgz")
genisoimage -quiet -R -V DEBIAN_LIVE -b boot/grub/bios.img -c boot/grub/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table -o out.iso disc
