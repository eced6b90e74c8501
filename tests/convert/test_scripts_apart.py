"""Shell scripts taken apart without being run: what shells do to words, and what is left as it is written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import converted, said

from tinamou.convert import kinds, writing
from tinamou.convert.assemble import assemble
from tinamou.convert.shell import Command, commands
from tinamou.errors import SpecError
from tinamou.spec import load_spec


def words(text: str) -> list[tuple[str, ...]]:
    return [command.words for command in commands(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\\\n  c", [("a", "b", "c")]),
        ("a 'b c' \"d e\" f\\ g", [("a", "b c", "d e", "f g")]),
        ("a # b\nc 'd # e'", [("a",), ("c", "d # e")]),
        ("# don't\na", [("a",)]),
        ("a; b && c || d | e &", [("a",), ("b",), ("c",), ("d",), ("e",)]),
        ("X=1\nY=$X$X\na ${Y} \"$Y\" $Z", [("a", "11", "11", "$Z")]),
        ("a ${1:-2G} ${Q:-x} ${Q-y}", [("a", "2G", "x", "y")]),
        ("A=(b 'c d' # e\n  f)\nA+=(g)\nx \"${A[@]}\"", [("x", "b", "c d", "f", "g")]),
        ("A=(b c)\nx \"${A[*]}\"", [("x", "b c")]),
        ("O='-m 1G'\nx $O", [("x", "-m", "1G")]),
        ("A= x y", [("x", "y")]),
        ("O=''; O=\"$O -m 1G\"; x $O -n", [("x", "-m", "1G", "-n")]),
        ("C='q -m 4G'; C+=' -n \"a b\"'; eval $C", [("q", "-m", "4G", "-n", "a b")]),
        ("C='q -m 4G'; $C; sudo $C", [("q", "-m", "4G"), ("sudo", "q", "-m", "4G")]),
        ("bash -c 'a; b c'", [("a",), ("b", "c")]),
        ("A=b\nx${A}y $A$A 'z'$A", [("xby", "bb", "zb")]),
        ("A=\nx $A \"$A\" y", [("x", "", "y")]),
        ("A='b c'; x \"$A\" p${A}q", [("x", "b c", "pb", "cq")]),
        ("x \\  \n y", [("x", "y")]),
        ("f() { a; }", [("a",)]),
        ("a ${X:+yes} ${Y%.*} $'q r'", [("a", "${X:+yes}", "${Y%.*}", "q r")]),
        ("export A=1 B=2\nx $A$B", [("export",), ("x", "12")]),
        ("a >b 2>&1 <c", [("a",)]),
        ("a \"$(b \"$(c d)\" e)\" f", [("a", "$(b \"$(c d)\" e)", "f")]),
        ("a $((1 + 2)) `b c`", [("a", "$((1 + 2))", "`b c`")]),
        ("cat <<EOF\nit's (\nEOF\na", [("cat",), ("a",)]),
        ("case x in\n y) a b;;\nesac", [("case", "x", "in"), ("a", "b")]),
        ("(a b)", [("a", "b")]),
        ("if a; then b c; fi", [("a",), ("b", "c")]),
        ("A=(b", []),
    ],
)  # fmt: skip
def test_words(text, expected):
    assert words(text) == expected


def test_lines_and_targets():
    assert commands("\na\n\necho 1 > /x") == [Command(2, ("a",)), Command(4, ("echo", "1"), "/x")]


SCRIPT = r"""#!/usr/bin/env bash
set -euo pipefail
cd "$(cd "$(dirname "$0")/.." && pwd)"
VM=/vm
EXTRA=""
if [ -f "$VM/extra.img" ]; then
  EXTRA="-device ide-hd,bus=sata.3,drive=extra -drive id=extra,if=none,file=$VM/extra.img,format=raw"
fi
case "$1" in
  run)
    exec qemu-system-x86_64 -enable-kvm -m 8192 -smp 8,cores=4,sockets=1,threads=2 \
      -drive id=main,if=none,snapshot=on,format=qcow2,file="$VM/main.qcow2" \
      -device ide-hd,bus=sata.2,drive=main $EXTRA \
      -netdev tap,id=net0,fd=3 -device virtio-net-pci,netdev=net0,bus=pcie.0,addr=0x3 \
      -nographic "$@" 2>&1 | tee log
    ;;
  arm) exec qemu-system-aarch64 -M virt -net none ;;
esac
"""


def test_a_whole_script():
    result = converted(SCRIPT)
    assert result.machine["image"] == "/vm/main.qcow2"
    assert result.machine["disk"] == [{"path": "/vm/extra.img", "format": "raw"}]
    assert result.machine["net"] == [{"type": "tap"}]
    assert "qemu_args" not in result.machine
    assert said(result, "$@", "only a shell", rank="check")
    assert said(result, "fd=3", "descriptor", rank="lost")
    assert said(result, "qemu-system-aarch64", "second machine", rank="lost")
    assert said(result, "bus=sata.3", rank="done") and said(result, "-snapshot", rank="changed")


def test_a_quote_that_is_never_closed():
    with pytest.raises(SpecError, match="never closed"):
        converted("qemu-system-x86_64 -name 'half")


PIECES = ["a", "-m", "1G", "'", '"', "(", ")", ";", "$(", "`", "\\", "\n", "<<", ">", "X=", "$X", "#", "|", "&"]


@given(st.lists(st.sampled_from(PIECES)))
def test_any_text_ends(pieces):
    """Whatever the text: a machine that loads, or a reason why not."""
    try:
        result = assemble(kinds.read("qemu-system-x86_64 " + " ".join(pieces)), {})
    except SpecError:
        return
    load_spec(tomllib.loads(writing.text(result.machine, result.source)))
