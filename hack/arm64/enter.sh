#!/bin/sh
# Runs a command on the emulated machine: enter.sh ROOT FOLDER... -- COMMAND...
#
# FOLDER has the same path on the emulated machine. The script runs in new user and mount namespaces, so its mounts and
# its interpreter for arm64 do not concern this machine. Since Linux 6.7 each user namespace has its own interpreters.
set -e
root=$1
shift
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
# An ELF of 64 bits for machine 183. F opens the interpreter now, before the root changes; P keeps argv[0].
elf='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf %s ":arm64:M::$elf:$mask:$root/usr/bin/qemu-aarch64-static:PF" >/proc/sys/fs/binfmt_misc/register
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
done
shift
# The kernel under it is that of this machine, whose CPUs the guest must not see: libraries that look crash or fail.
for folder in /dev /proc; do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
done
mount --bind "$root/etc/cpuinfo" "$root/proc/cpuinfo"
exec chroot "$root" "$@"
