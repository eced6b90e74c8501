#!/bin/sh
# Runs in the throw-away machine that puts drivers into a Windows: its disk has the serial disk0, the disc of drivers disk1.
#
# usage: windows_drivers.sh list                    the disc's files, one a line
#        windows_drivers.sh put START FOLDER        what FOLDER says, on the volume that begins at byte START of the disk:
#                                                   FOLDER/copies and FOLDER/texts have lines "source<tab>target",
#                                                   FOLDER/SYSTEM.hivexsh and FOLDER/SOFTWARE.hivexsh say the registry's
set -eu

fail() { echo "$1" | tr '\n' ' ' >&2; exit 1; }

disk() { # the name of the block device with that serial
    for one in /sys/block/vd*; do
        if [ "$(cat "$one/serial")" = "$1" ]; then echo "${one##*/}"; return; fi
    done
    fail "there is no disk with the serial $1"
}

at() { # a path of the volume as it is written there, in any case; folders are made where they are not
    here=/mnt/windows rest=$1
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
        there=$(find "$here" -mindepth 1 -maxdepth 1 -iname "$part" -print -quit)
        here=${there:-$here/$part}
        [ -z "$rest" ] || [ -d "$here" ] || mkdir "$here"
    done
    echo "$here"
}

put() { # every file of a list, compared with its source
    tab=$(printf '\t')
    while IFS=$tab read -r source target; do
        to=$(at "$target")
        cp -- "$1/$source" "$to"
        cmp -- "$1/$source" "$to"
    done < "$2"
}

mkdir -p /mnt/windows /mnt/disc
disc=$(disk disk1)
modprobe -a isofs fuse
export GCONV_PATH=/usr/lib/gconv
cat > "$GCONV_PATH/gconv-modules" <<'MODULES'
alias LATIN1// ISO-8859-1//
module ISO-8859-1// INTERNAL ISO8859-1 1
module INTERNAL ISO-8859-1// ISO8859-1 1
module UTF-16LE// INTERNAL UTF-16 1
module INTERNAL UTF-16LE// UTF-16 1
MODULES
grep -q " /mnt/disc " /proc/mounts || said=$(mount -t iso9660 -o ro "/dev/$disc" /mnt/disc 2>&1) || fail "the disc of drivers is not read: $said"

case $1 in
list)
    cd /mnt/disc
    find . -type f | head -n 20000 | head -c 2000000
    ;;
put)
    device=$(disk disk0)
    for one in /sys/block/"$device" /sys/block/"$device"/"$device"*; do
        first=$(cat "$one/start" 2>/dev/null || echo 0)
        [ $((first * 512)) != "$2" ] || device=${one##*/}
    done
    said=$(ntfs-3g -o norecover "/dev/$device" /mnt/windows 2>&1) || fail "the volume of Windows is not written to: $said"
    grep -qE " /mnt/windows fuse(blk)? rw[, ]" /proc/mounts || fail "the volume of Windows can only be read: $said"
    put /mnt/disc "$3/copies"
    put "$3" "$3/texts"
    for hive in SYSTEM SOFTWARE; do
        [ ! -s "$3/$hive.hivexsh" ] || hivexsh -w -f "$3/$hive.hivexsh" "$(at "Windows/System32/config/$hive")"
    done
    umount /mnt/windows
    sync
    ;;
esac
