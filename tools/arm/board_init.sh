#!/bin/sh
# First process of the emulated board: devices, network, SSH server.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /run/sshd
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777,size=256m tmpfs /tmp
ln -sf /proc/self/fd /dev/fd

# The archive that this system came in gives every file to root.
chown -R pi:pi /home/pi
chmod 755 /home/pi
chmod 700 /run/sshd

while read -r module; do insmod "/lib/modules/edgeq/$module"; done < /lib/modules/edgeq/order
hostname -F /etc/hostname
ip link set lo up
[ "$(ls /sys/class/net)" != lo ] || echo "edgeq-board: no network card"
card=$(ls /sys/class/net | grep -v '^lo$' | head -n 1)
ip address add 10.0.2.15/24 dev "$card"
ip link set "$card" up
ip route add default via 10.0.2.2

/usr/sbin/sshd
read -r uptime _ < /proc/uptime
echo "edgeq-board: ready after $uptime s"
# Process 1 must not end, and reaps what others leave behind.
while :; do sleep 3600 & wait; done
