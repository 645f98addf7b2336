#!/bin/busybox sh
# The first process of a guest: mounts the machine's root under an overlay, runs the command that
# lies beside it in /command, reports its status on the console, powers off.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
for module in /mods/*; do
  $B insmod "$module" || echo "GUEST: insmod $module failed"
done
$B mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /lower ||
  echo "GUEST: no root"
$B mount -t tmpfs -o size=75% tmpfs /rw
$B mkdir /rw/upper /rw/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new ||
  echo "GUEST: no overlay"
for folder in proc sys dev; do
  $B mkdir -p /new/$folder
  $B mount --move /$folder /new/$folder
done
$B mkdir -p /new/dev/pts /new/dev/shm
$B mount -t devpts -o ptmxmode=666 devpts /new/dev/pts
$B mount -t tmpfs shm /new/dev/shm
if $B grep -q guest.out=1 /new/proc/cmdline; then
  $B mkdir -p /new/out
  $B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 out /new/out
fi
$B ip link set lo up
# A folder of the host beside a root that is not the host's.
tree=$($B sed -n 's/.*guest.tree=\([^ ]*\).*/\1/p' /new/proc/cmdline)
if [ -n "$tree" ]; then
  $B mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 tree /tree ||
    echo "GUEST: no tree"
  $B mkdir -p /rw/tree /rw/tree.work "/new$tree" /new/tmp
  $B mount -t overlay -o lowerdir=/tree,upperdir=/rw/tree,workdir=/rw/tree.work overlay "/new$tree" ||
    echo "GUEST: no overlay of the tree"
fi
port=$($B sed -n 's/.*guest.port=\([^ ]*\).*/\1/p' /new/proc/cmdline)
$B stty -F "/new/dev/$port" raw -echo
command=$($B cat /command)
HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
  $B setsid $B chroot /new /bin/bash -c "$command" >"/new/dev/$port" 2>&1 </new/dev/null
echo "GUEST-STATUS=$?" >/new/dev/console
$B poweroff -f
