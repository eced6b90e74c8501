# Sends a file or folder of the guest to the host. Goes on where line.sh ends.
# Words: WHERE the line is (a port's name, - for stdout), WHAT (file, folder, archive), ID, UNIT, PATH, NAME (archive: of PATH)
# Input: the program extents, or nothing.
# It says:  "file MODE TIME SIZE", a line with the name of a file of a folder (empty for a file alone), for each stretch of its
#           data "SKIP COUNT", COUNT units (zeros after the file's end), "sum SUM" of the data; "0 0"
#           "folder", "chunk SIZE SUM" and SIZE bytes of tar archives again and again, "chunk 0 -"
#           "end STATUS SHRUNK"
# shellcheck shell=sh disable=SC2154
where=$0 what=$1 id=$2 unit=$3 path=$4 name=$5
# Out of a guest whose disk is full as well: where there is room for a chunk, or for the program and a list.
room=128
[ "$what" != file ] || room=2
for place in "${TMPDIR:-/tmp}" /run /dev/shm /var/tmp; do
    place=$place/.tinamou-$id
    if mkdir -m 700 "$place" 2>/dev/null; then
        dd if=/dev/zero of="$place/chunk" bs=65536 count=$room 2>/dev/null && break
        rm -rf "$place"
    fi
    place=''
done
[ -n "$place" ] || complain "no folder for temporary files has $((room * 64)) KiB left: /tmp, /run, /dev/shm, /var/tmp"
rm "$place/chunk"
extents=$place/extents
cat >"$extents" && chmod 700 "$extents"
"$extents" 2>/dev/null
[ $? = 2 ] || extents=''
if [ "$where" = - ]; then exec 3>&1
else port_named "$where"; exec 3>"$port"
fi

# Exactly so many units of a file; nothing but zeros where it ends early.
units_of() { # FILE SKIP COUNT
    told=$(dd if="$1" bs="$unit" skip="$2" count="$3" conv=sync 2>&1 >&3)
    case $told in
        [0-9]*+[0-9]*) told=${told%% *} ;;
        *) echo "$told" >&2; told=0+0; echo 1 >"$place/status" ;;
    esac
    missing=$(($3 - ${told%+*} - ${told#*+}))
    [ $missing = 0 ] || { shrunk=yes; dd if=/dev/zero bs="$unit" count=$missing 2>/dev/null >&3; }
}
longest=1024 # units in one sum: the host shall not wait for long while it is made
send_file() { # FILE NAME
    state=$(stat -L -c '%a %Y %s' "$1") || exit 1
    size=${state##* }
    blocks=$(((size + unit - 1) / unit))
    { [ -n "$extents" ] && "$extents" "$1" "$unit"; } >"$place/list" || echo "0 $blocks" >"$place/list"
    printf 'file %s\n%s\n' "$state" "$2" >&3
    while read -r skip count && [ "$skip" -lt $blocks ]; do
        [ $((skip + count)) -le $blocks ] || count=$((blocks - skip))
        while [ "$count" -gt 0 ]; do
            part=$count
            [ "$part" -le $longest ] || part=$longest
            echo "$skip $part" >&3
            units_of "$1" "$skip" "$part"
            sum_stretch "$1" "$skip" "$part" $blocks
            [ "$(stat -L -c '%a %Y %s' "$1")" = "$state" ] || sum=-
            echo "sum $sum" >&3
            skip=$((skip + part)) count=$((count - part))
        done
    done <"$place/list"
    echo "0 0" >&3
}
# What comes, in chunks; so many units each.
send_chunks() {
    while :; do
        dd bs=65536 iflag=fullblock count=128 of="$place/chunk" 2>"$place/told" || { cat "$place/told" >&2; exit 1; }
        size=$(stat -c %s "$place/chunk") || exit 1
        [ "$size" -gt 0 ] || break
        sum_up "$place/chunk"
        echo "chunk $size $sum" >&3
        cat "$place/chunk" >&3 || exit 1
    done
    echo "chunk 0 -" >&3
}
# Large files with holes go by themselves, and not in the archive. A line break in a name keeps a file from that.
send_folder() {
    cd "$path" || exit 1
    : >"$place/sparse"
    # shellcheck disable=SC2016
    list='"$2" "$0" && printf "%s\n" "$0" >>"$1"'
    if [ -n "$extents" ] && find . -type f -size +128 -exec stat -c '%b %s' {} + | any_sparse; then
        {
            find . \( -type f -size +128 ! -name '*
*' -exec sh -c "$list" {} "$place/sparse" "$extents" \; \) -o -print0 |
                xargs -0 tar -c --no-recursion -f - 2>>"$place/tar"
            echo $? >"$place/status"
        } | send_chunks
    else
        { tar -c -f - . 2>"$place/tar"; echo $? >"$place/status"; } | send_chunks
    fi
    while IFS= read -r one; do send_file "$one" "$one"; done <"$place/sparse"
}
any_sparse() {
    while read -r blocks size; do [ $((blocks * 512)) -ge "$size" ] || return 0; done
    return 1
}
# What tar says of files that change, vanish or are sockets is no reason to give up: it is told, and all else was sent.
harmless='changed as we read it|removed before we read it|socket ignored|unknown file type|failure status|exit delayed'
tar_status() {
    read -r status <"$place/status"
    [ ! -s "$place/tar" ] || cat "$place/tar" >&2
    [ "$status" = 0 ] || [ ! -s "$place/tar" ] || grep -q -v -E "$harmless" "$place/tar" || status=0
}
echo 0 >"$place/status"
shrunk=no
case $what in
    file) send_file "$path" "" ;;
    folder) echo folder >&3; send_folder ;;
    archive)
        echo folder >&3
        { tar -c -f - -C "$path" -- "$name" 2>"$place/tar"; echo $? >"$place/status"; } | send_chunks
        ;;
esac
tar_status
echo "end $status $shrunk" >&3
exit "$status"
