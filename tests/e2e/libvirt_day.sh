# What an administrator who comes from virsh does with a machine in its first months; each step is looked at from inside.
set -eu
vm() { "$PYTHON" -m tinamou "$@"; }
is() { [ "$1" = "$2" ] || { echo "line ${BASH_LINENO[0]}: $1 instead of $2" >&2; exit 1; }; }
inside() { vm exec "$1" -- sh -c "$2"; }
memory() { inside "$1" "awk '/MemTotal/ {print int(\$2 / 1024 / 100)}' /proc/meminfo"; }  # in hundreds of MiB

# virt-install
vm run -d --name web --memory 256M --disk size=32M --net user --set cpu.max=2
is "$(inside web 'hostname; nproc; cat /sys/block/vda/size')" "$(printf 'web\n1\n65536')"
inside web 'echo first > /dev/vda; sync'

# virsh setvcpus --live, setmaxmem, edit
vm set web cpus=2
is "$(inside web nproc)" 2
VISUAL="sed -i s/256M/512M/" vm edit web
is "$(memory web)" 2
vm restart web
is "$(memory web)" 4
is "$(inside web 'nproc; head -c 5 /dev/vda')" "$(printf '2\nfirst')"

# virsh snapshot-create-as, snapshot-revert
vm snapshot create web before
inside web 'echo wrong > /dev/vda; sync'
vm stop web
vm snapshot revert web before
vm start web
is "$(inside web 'head -c 5 /dev/vda')" first

# virsh domrename; the guest goes on as who it was
address=$(inside web 'cat /sys/class/net/eth0/address')
vm stop web
vm rename web shop
vm start shop
is "$(inside shop 'head -c 5 /dev/vda; cat /sys/class/net/eth0/address')" "first$address"

# virt-clone
vm stop shop
vm clone shop second
vm start second
is "$(inside second 'hostname; head -c 5 /dev/vda')" "$(printf 'second\nfirst')"
inside second 'echo other > /dev/vda; sync'
vm start shop
is "$(inside shop 'head -c 5 /dev/vda')" first
[ "$(inside second 'cat /sys/class/net/eth0/address')" != "$address" ]
vm stop shop
vm stop second

# virsh autostart; the host boots: each unit's process starts its machine, and ends it in order when the host goes down
vm autostart second --grace 60
vm autostart shop --after second --grace 60
"$PYTHON" -m tinamou autostart second --attend & first=$!
"$PYTHON" -m tinamou autostart shop --attend & last=$!
trap 'kill -9 $first $last 2> /dev/null || :' EXIT
for unit in "$first second" "$last shop"; do
    until inside "${unit#* }" true 2> /dev/null; do kill -0 "${unit% *}"; sleep 1; done
done
is "$(inside shop 'cat /sys/class/net/eth0/address')" "$address"
kill "$last"; wait "$last"
kill "$first"; wait "$first"
trap - EXIT
is "$(vm ls --json | grep -c '"state": "stopped"')" 2

# virsh dumpxml and a copy of the disk, elsewhere; undefine
vm export shop "$PLACE/shop.tinamou"
vm rm shop second
is "$(vm ls -q)" ""
vm import "$PLACE/shop.tinamou"
vm start shop
is "$(inside shop 'nproc; head -c 5 /dev/vda')" "$(printf '2\nfirst')"
is "$(memory shop)" 4
vm rm -f shop
