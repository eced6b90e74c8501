# What a path of the guest is: its kind; the architecture; mode, time, size where it is a file; and last its path without links.
# Words: PATH, NAME: what is asked about is PATH/NAME where PATH is a folder (or ends with /), and a NAME is given.
# shellcheck shell=sh
LC_ALL=C; export LC_ALL
path=$0
if [ -n "$1" ]; then
    case $path in
        */) path=$path$1 ;;
        *) [ ! -d "$path" ] || path=$path/$1 ;;
    esac
fi
if [ -d "$path" ]; then echo folder
elif [ -f "$path" ]; then echo file
elif [ -e "$path" ]; then echo special
elif [ -L "$path" ]; then echo dangling
else echo nothing
fi
uname -m
stat -L -c '%a %Y %s' "$path" 2>/dev/null || echo
readlink -f "$path" 2>/dev/null || printf '%s\n' "$path"
