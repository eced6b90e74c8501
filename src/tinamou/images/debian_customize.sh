#!/bin/sh
# Runs inside the new Debian root: units, boot loader files, and nothing left of the place where it was built.
set -eu
root_uuid=$1 esp_uuid=$2 suite=$3 console=$4

printf 'UUID=%s / ext4 defaults,errors=remount-ro 0 1\n' "$root_uuid" >/etc/fstab
printf 'UUID=%s /boot/efi vfat umask=0077,nofail,x-systemd.automount,x-systemd.idle-timeout=1min 0 2\n' "$esp_uuid" >>/etc/fstab
mkdir -p /boot/efi /boot/grub
echo debian >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n' >/etc/hosts

systemctl -q enable systemd-networkd systemd-resolved systemd-timesyncd ssh ssh-host-keys grow-root qemu-guest-agent 2>/dev/null
systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
    systemd-pcrphase.service systemd-pcrphase-initrd.service systemd-pcrphase-sysinit.service

ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf

cat >/boot/grub/grub.cfg <<END
set timeout=0
serial --unit=0 --speed=115200
terminal_output console serial
search --no-floppy --fs-uuid --set=root $root_uuid
linux /vmlinuz root=UUID=$root_uuid ro console=tty0 console=$console
initrd /initrd.img
boot
END
if [ -d /usr/lib/grub/i386-pc ]; then
    mkdir -p /boot/grub/i386-pc
    cp /usr/lib/grub/i386-pc/*.mod /usr/lib/grub/i386-pc/*.lst /usr/lib/grub/i386-pc/boot.img /boot/grub/i386-pc/
    printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\n' "$root_uuid" >/tmp/early.cfg
    grub-mkimage -O i386-pc -c /tmp/early.cfg -p /boot/grub -o /boot/grub/i386-pc/core.img \
        biosdisk part_gpt ext2 search_fs_uuid normal configfile linux serial terminal
fi

cat >/etc/apt/sources.list.d/debian.sources <<END
Types: deb
URIs: http://deb.debian.org/debian
Suites: $suite $suite-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: $suite-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/0000* /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/*.log /var/log/apt /tmp/early.cfg
: >/etc/machine-id
