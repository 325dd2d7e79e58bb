# The guest itself, before any test of ours: has it what the kernel tests take for granted?
# host_dns is the DNS server of the machine outside, reached through virtio-net.
set -eu
test -s /sys/kernel/btf/vmlinux
grep -q cgroup2 /proc/mounts
grep -q ' /sys/fs/bpf bpf' /proc/mounts
test -d /sys/kernel/tracing/events/net/net_dev_queue
# What was asked of the kernel's lockdown is so.
asked=$(grep -o 'lockdown=[a-z]*' /proc/cmdline) || asked=lockdown=none
grep -qF "[${asked#lockdown=}]" /sys/kernel/security/lockdown
# So is SELinux.
! grep -q security=selinux /proc/cmdline || test -e /sys/fs/selinux/enforce
echo "kptr_restrict $(cat /proc/sys/kernel/kptr_restrict)"

modprobe -a veth nf_conntrack nf_conntrack_netlink ip_vs ip_vs_rr vxlan tun sch_netem

# The tests find the guest's own namespace as it was.
trap 'ip netns del pod; iptables -t nat -F' EXIT

# A pod's namespace behind a veth pair, a VIP that DNAT sends to the host's DNS server.
ip netns add pod
ip link add veth-node type veth peer name eth0 netns pod
ip address add 10.244.0.1/24 dev veth-node
ip link set veth-node up
ip -n pod address add 10.244.0.2/24 dev eth0
ip -n pod link set eth0 up
ip -n pod link set lo up
ip -n pod route add default via 10.244.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
iptables -t nat -A PREROUTING -d 10.96.0.10 -p udp --dport 53 -m comment --comment vip \
    -m statistic --mode random --probability 1.0 -j DNAT --to-destination "$host_dns"
iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
iptables-legacy -t mangle -L -n >/dev/null
tc qdisc add dev veth-node root netem delay 1ms

ip netns exec pod dig +tries=1 +time=5 +short @10.96.0.10 big.lab.test >/tmp/answer
test "$(wc -l </tmp/answer)" = 72
conntrack -L -p udp --orig-dst 10.96.0.10 | grep 10.0.2.2
