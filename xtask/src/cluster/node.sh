# Becomes a node's containerd, in a mount and a UTS namespace just made for it: a node's /etc, /opt,
# /run and /var are its own, so that everything lies where it lies on any node.
#
# $1: where these four are kept; $2: the node's name; $3: containerd.
set -eu
echo "$2" > /proc/sys/kernel/hostname
mount --make-rshared /
for dir in etc opt run; do
    mount --bind "$1/$dir" "/$dir"
done
# The kubelet would set these for the whole machine; it finds them set.
for sysctl in "$1"/sysctl/*/*; do
    mount --bind "$sysctl" "/proc/sys/${sysctl#"$1/sysctl/"}"
done
mount --bind "$1/var" /var
exec "$3"
