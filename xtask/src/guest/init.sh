#!/bin/busybox sh
# The first program of the demo's initramfs: file systems, modules, network, and a shell on the console for ever.
/bin/busybox --install -s /bin
export PATH=/sbin:/bin HOME=/root TERM=vt100 PS1='linux# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts

# The net domain passes what comes from the interface's one IPv4 address, and nothing else.
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6

# Parameters of a module on the kernel's command line, as modprobe finds them: `xen_blkfront.max_ring_page_order=2`.
parameters() {
    local word
    for word in $(cat /proc/cmdline); do
        case $word in
            "$1".*=*) echo "${word#*.}" ;;
        esac
    done
}

while read -r module; do
    # shellcheck disable=SC2046 # a word a parameter
    insmod "/modules/$module" $(parameters "${module%.ko}") || echo "init: $module cannot be loaded"
done < /modules/order

# `ip=ADDRESS:SERVER:GATEWAY:NETMASK:HOST:INTERFACE:...`, as the kernel documents it. A front end's interface appears a
# moment after its module.
set_up_network() {
    local address server gateway netmask host interface rest waited=0
    IFS=: read -r address server gateway netmask host interface rest <<END
$1
END
    interface=${interface:-eth0}
    until [ -e "/sys/class/net/$interface" ]; do
        waited=$((waited + 1))
        if [ "$waited" -gt 50 ]; then
            echo "init: no network interface $interface"
            return
        fi
        usleep 100000
    done
    [ -n "$host" ] && hostname "$host"
    ifconfig "$interface" "$address" netmask "${netmask:-255.255.255.0}" up || return
    [ -n "$gateway" ] && route add default gw "$gateway"
}

ifconfig lo 127.0.0.1 up
for word in $(cat /proc/cmdline); do
    case $word in
        ip=*) set_up_network "${word#ip=}" ;;
    esac
done

# A program that whoever added it to this archive wants to be run first.
[ -x /start ] && /start

echo "init: ready; \`poweroff -f\` ends this machine"
while :; do
    setsid cttyhack sh -l
done
