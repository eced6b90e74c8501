# Both directions of a copy begin so: where the line to the host is (descriptor 3), and sums of the data that goes over it.
# shellcheck shell=sh
umask 077
LC_ALL=C; export LC_ALL
place=''
complain() { echo "$1" >&2; exit "${2:-1}"; }
trap 'exit 1' HUP INT TERM PIPE
trap 'rm -rf "$place"' EXIT

# The device of the virtio-serial port of this name, which comes up while we look.
port_named() {
    tries=0
    while [ $tries -lt 100 ]; do
        for port in /sys/class/virtio-ports/*; do
            { read -r found <"$port/name"; } 2>/dev/null || continue
            port=/dev/${port##*/}
            [ "$found" != "$1" ] || [ ! -c "$port" ] || return 0
        done
        tries=$((tries + 1))
        sleep 0.05 2>/dev/null || sleep 1
    done
    complain "no virtio-serial port $1 came up" 72
}
# Sums are in $sum; - where the guest cannot make one.
sum_up() { # FILE
    sum=-
    ! command -v sha256sum >/dev/null || sum=$(sha256sum <"$1")
    sum=${sum%% *}
}
# Of a stretch of a file, which may be the whole file.
sum_stretch() { # FILE FIRST COUNT UNITS-IN-ALL
    if ! command -v sha256sum >/dev/null; then sum=-
    elif [ "$2 $3" = "0 $4" ]; then sum_up "$1"
    else sum=$(dd if="$1" bs="$unit" skip="$2" count="$3" 2>/dev/null | sha256sum); sum=${sum%% *}
    fi
}
