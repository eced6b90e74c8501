# Takes a file or folder from the host and puts it in its place. Goes on where line.sh ends.
# Words: WHERE the line is (a port's name, a file, - for stdin), WHAT (file, folder), ID, UNIT, TARGET (without links), MODE
# Over a port it says an empty line first, when it is there. It hears:
#           "tar", "COUNT UNIT SUM" and COUNT units of a tar archive, again and again, "0 0 -"
#           "file MODE TIME SIZE", a line with the name of a file of the folder (empty for a file alone), for each stretch of its
#           data "SEEK COUNT", COUNT units (zeros after the file's end), "SUM" of them; "0 0"
#           "end"
# What comes is kept aside until all of it is there, then moved into place: nothing that is there becomes another kind of
# thing, links are gone through as cp does, and folders keep their modes.
# shellcheck shell=sh disable=SC2154
where=$0 what=$1 id=$2 unit=$3 target=$4 mode=$5
parent=${target%/*}/
case $where in
    -) exec 3<&0 ;;
    /*) exec 3<"$where"; rm -f "$where" ;;
    *) port_named "$where"; exec 3<>"$port"; echo >&3 ;;
esac
[ "$what" != folder ] || [ -d "$target" ] || mkdir -p "$parent" || exit 1
[ "$what" = folder ] && [ -d "$target" ] && parent=$target/
place=${parent}.tinamou-$id.part
[ -d "$parent" ] || { place=''; complain "there is no folder $parent"; }
mkdir -m 700 "$place" || { place=''; exit 1; }
new=$place/new
[ "$what" = file ] || mkdir "$new" || exit 1

verified=verified
# Whether the sum that was made is that of the host.
agree() { # SUM
    if [ "$sum" = - ]; then verified=; else [ "$sum" = "$1" ]; fi
}
take_chunks() {
    while read -r count size theirs <&3 && [ "$count" -gt 0 ]; do
        written bs="$size" count="$count" of="$place/chunk" || exit 1
        sum_up "$place/chunk"
        agree "$theirs" || { : >"$place/damaged"; exit 1; }
        [ -n "$verified" ] || : >"$place/unverified"
        cat "$place/chunk" || exit 1
    done
}
take_tar() {
    take_chunks | { tar -x -p -o -f - -C "$new" && cat >/dev/null; } || complain_of tar
    [ ! -e "$place/unverified" ] || verified=
}
complain_of() {
    [ ! -e "$place/damaged" ] || complain damaged 71
    complain "$1 failed"
}
# What dd complains of is kept in no file: a disk that is full would not hold it.
written() {
    told=$(dd iflag=fullblock "$@" <&3 2>&1) || { echo "$told" | sed '/records \(in\|out\)$/d; / copied, /d' >&2; return 1; }
}
take_file() { # MODE TIME SIZE
    IFS= read -r name <&3 || exit 1
    one=$new$name
    [ -e "$one" ] || : >"$one" || exit 1
    blocks=$((($3 + unit - 1) / unit))
    while read -r seek count <&3 && [ "$count" -gt 0 ]; do
        written of="$one" bs="$unit" count="$count" seek="$seek" conv=notrunc || complain_of dd
        read -r theirs <&3 || exit 1
        sum_stretch "$one" "$seek" "$count" $blocks
        agree "$theirs" || complain damaged 71
    done
    truncate -s "$3" "$one" && chmod "$1" "$one" || exit 1
    touch -m -d "@$2" "$one" 2>/dev/null || true
}
there() { [ -e "$1" ] || [ -L "$1" ]; }

# Whether all of the folder $1 fits into the folder $2. These two call themselves: what they need later must not lie in variables.
fits() {
    for one in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        there "$one" || continue
        old=$2/${one##*/}
        there "$old" || continue
        if [ -d "$one" ] && [ ! -L "$one" ]; then
            [ -d "$old" ] || complain "$old is there and is no folder"
            fits "$one" "$old"
        elif [ -L "$one" ]; then
            [ -L "$old" ] || complain "$old is there and is no link"
        else
            [ -f "$old" ] || complain "$old is there and is no file"
        fi
    done
}
merge() {
    for one in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        there "$one" || continue
        old=$2/${one##*/}
        if ! there "$old" || { [ ! -L "$one" ] && [ ! -d "$one" ] && [ ! -L "$old" ]; }; then
            set -- "$@" "$one"
            [ $# -lt 102 ] || { move "$@"; set -- "$1" "$2"; }
        elif [ -d "$one" ] && [ ! -L "$one" ]; then merge "$one" "$old"
        elif [ -L "$one" ]; then rm -f "$old" && mv "$one" "$old" || exit 1
        else mv -f "$one" "$(readlink -f "$old")" || exit 1
        fi
    done
    move "$@"
}
move() { # FROM INTO WHAT...
    into=$2
    shift 2
    [ $# = 0 ] || mv -f "$@" "$into/" || exit 1
}

complete=''
while [ -z "$complete" ] && read -r word mode_of time size <&3; do
    case $word in
        tar) take_tar ;;
        file) take_file "$mode_of" "$time" "$size" ;;
        end) complete=yes ;;
        *) complain "the host said: $word" ;;
    esac
done
[ -n "$complete" ] || complain "it was cut short"
if [ "$what" = file ]; then
    mv -f "$new" "$target" || exit 1
elif [ -d "$target" ]; then
    fits "$new" "${target%/}"
    merge "$new" "${target%/}"
else
    chmod "$mode" "$new" && mv "$new" "$target" || exit 1
fi
echo "$verified"
