#!/busybox/busybox sh
# First process of the guest: mounts what a node has, runs /script, prints its exit status for
# xtask to find on the console, and powers off.
b=/busybox/busybox
export PATH=/usr/sbin:/usr/bin:/busybox HOME=/root TERM=dumb LANG=C.UTF-8
$b mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1
$b --install -s /busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t tmpfs run /run
# /tmp stays as it is, in memory like all else: a workspace built there has its tests in it.
$b mkdir -p /dev/pts /run/netns
$b mount -t devpts pts /dev/pts
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t debugfs debugfs /sys/kernel/debug
$b mount -t tracefs tracefs /sys/kernel/tracing
$b mount -t securityfs securityfs /sys/kernel/security
[ ! -d /sys/fs/selinux ] || $b mount -t selinuxfs selinuxfs /sys/fs/selinux
$b ln -s /proc/self/fd /dev/fd
$b hostname guest
/usr/bin/ip link set lo up
modprobe -a veth bridge br_netfilter nf_conntrack
# The host's 127.0.0.1 is 10.0.2.2 on QEMU's user network.
if [ -n "$guest_net" ]; then
    modprobe -a virtio_pci virtio_net
    for _ in $($b seq 50); do [ -e /sys/class/net/eth0 ] && break; $b sleep 0.1; done
    /usr/bin/ip link set eth0 up
    /usr/bin/ip address add 10.0.2.15/24 dev eth0
    /usr/bin/ip route add default via 10.0.2.2
fi
echo "Linux $($b uname -r), $($b cut -d' ' -f1 /proc/uptime) s after power-on"
/usr/bin/bash /script
status=$?
echo
echo "xtask-guest-status $status"
$b poweroff -f
