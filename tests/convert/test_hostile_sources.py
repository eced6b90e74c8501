"""Sources made to keep their reader busy: each ends soon, with a reason."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from appliances import ovf, vmx
from reading import converted

from tinamou.cli.described import described
from tinamou.convert import files, kinds, ova
from tinamou.convert.assemble import assemble
from tinamou.errors import ImageError, SpecError
from tinamou.spec import load_spec
from tinamou.units import CpuSet

pytestmark = pytest.mark.timeout(120)

QEMU = "qemu-system-x86_64 -m 1G "
BUSY = {
    "a quote that stays open": QEMU + "'\n" + 'a "\n' * 30_000,
    "a bracket that stays open": QEMU + "(\n" + 'x "y"\n' * 30_000,
    "comments in an open quote": QEMU + "'" + " #" * 30_000,
    "words of lines that go on": QEMU + "a \\\n" * 100_000,
    "variables of variables": "A=aaaaaaaaaa\n" + "A=$A$A\n" * 40 + QEMU + "$A",
    "lists of lists": "A=(a b)\n" + "A=(${A[@]} ${A[@]})\n" * 40 + QEMU + "${A[@]}",
    "very many commands": "kvm\n" * 60_000,
    "very many words": QEMU + "-x a " * 60_000,
    "sudo without end": "sudo " * 60_000 + QEMU,
}


@pytest.mark.parametrize("name", BUSY)
def test_a_script_that_keeps_its_reader_busy(name: str) -> None:
    with pytest.raises(SpecError, match=r"too long|never closed|has \d+ words|nothing tinamou converts"):
        converted(BUSY[name])


@pytest.mark.parametrize(
    "text",
    [
        QEMU + "$(" * 30_000 + ")" * 30_000,
        QEMU + "a\\\n" * 100_000,
        "A=(\n" + "  # -device \"virtio-rng-pci's\n" * 100_000 + f")\n{QEMU}",
        "awk '\n" + "# x \n" * 700_000 + f"'\n{QEMU}",
    ],
    ids=["substitutions", "one long word", "comments of a list", "a text of four megabytes"],
)
def test_a_script_that_is_large_is_read(text: str) -> None:
    assert converted(text).machine["memory"]["size"] == "1G"


def test_a_list_that_is_assigned_over_many_lines_is_read() -> None:
    lines = "".join(f'  -device virtio-rng-pci,id=r{number} # "one" of them\'s many\n' for number in range(100))
    assert converted(f"ARGS=(\n{lines})\n{QEMU}" + '"${ARGS[@]}"').machine["memory"]["size"] == "1G"


def test_a_quote_inside_an_option_of_a_variable() -> None:
    assert converted(f'A="-name it\'s"\n{QEMU} $A\n').machine["memory"]["size"] == "1G"


@pytest.mark.parametrize("blank", ["\n", " "])
@pytest.mark.parametrize("begin", ["x", 'memsize = "1"\nkey', "guest_os=linux\n"])
def test_half_a_mebibyte_of_nothing(begin: str, blank: str) -> None:
    try:
        kinds.read(begin + blank * (1 << 19) + "x")
    except SpecError as error:
        assert "nothing tinamou converts" in str(error)


def test_forwards_of_a_hundred_thousand_digits() -> None:
    text = "guest_os=linux\nport_forwards=(" + "9" * 100_000 + " 22:22 80:8080x)\n"
    assert converted(text).machine["net"][0]["forward"] == ["tcp:127.0.0.1:22:22", "tcp:127.0.0.1:80:8080"]


def test_a_redirection_that_is_none() -> None:
    assert converted(["qemu-system-x86_64", "-redir", "tcp"]).machine["arch"] == "x86_64"


def test_a_vmx_of_too_many_settings() -> None:
    with pytest.raises(SpecError, match="has 3000 settings"):
        kinds.read('memsize = "1"\n' + "".join(f'scsi{n}:0.fileName = "a"\n' for n in range(2999)))
    assert kinds.read(vmx(more='a = "b = "c""')).machine["memory"]["size"] == "2G"


@pytest.mark.parametrize(
    "inside", ["<a>" * 200 + "</a>" * 200, "<a/>" * 30_000, "<devices>" + "<disk/>" * 30_000 + "</devices>"]
)
def test_xml_that_is_deep_or_wide(inside: str) -> None:
    with pytest.raises(SpecError, match="too large"):
        kinds.read(f"<domain type='kvm'>{inside}</domain>")


def test_json_that_is_deep() -> None:
    for depth in (100, 10_000):
        text = '{"": ' * depth + "1" + "}" * depth
        assert converted(["qemu-system-x86_64", "-blockdev", text]).machine["arch"] == "x86_64"


def test_definitions_that_refer_to_each_other() -> None:
    words = [word for n in range(1500) for word in ("-object", f"x,id=a{n},next=a{n + 1}")]
    machine = converted(["qemu-system-x86_64", *words, "-device", "y,object=a0"]).machine
    assert machine["qemu_args"][-2:] == ["-device", "y,object=a0"] and machine["qemu_args"].count("-object") == 1500


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("d" * 5000, "a/" * 5000):
        draft = kinds.read(f"guest_os=linux\ndisk_img={name}\n")
        files.absolute(draft, tmp_path)
        assert name.strip("/") in load_spec(assemble(draft, files.look(draft, tmp_path)).machine).image


# ── archives ──


def header(name: str, size: int, *, kind: bytes = b"0", digits: bytes | None = None) -> bytes:
    """A header of tar, with a size that tarfile would not write."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = digits if digits is not None else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar(*members: tuple[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w", format=format) as archive:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return out.getvalue()


NEGATIVE = b"\xff" * 11 + b"\x00"
ARCHIVES = {
    "no number": header("a.ovf", 0, digits=b"xxxxxxxxxxx\0") + bytes(1024),
    "a negative size": header("a", 0, digits=NEGATIVE) + bytes(2048),
    "a size that leads back": header("b", 0) + header("a", 0, digits=b"\xff" * 10 + b"\xfc\x00") + bytes(2048),
    "more than there is": header("a.ovf", 1 << 30) + bytes(1024),
    "a name of a gibibyte": header("x", 1 << 30, kind=b"L") + bytes(2048),
    "settings of a gibibyte": header("x", 1 << 30, kind=b"x") + bytes(2048),
    "headers of headers": (header("x", 512, kind=b"x") + b"9 a=bcd\n".ljust(512, b"\0")) * 2000 + bytes(1024),
    "a sparse file": header("a.ovf", 0, kind=b"S") + bytes(1024),
    "very many files": header("a", 0) * 3000 + bytes(1024),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_leads_astray(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.ova").write_bytes(ARCHIVES[name])
    with pytest.raises(SpecError, match=r"damaged archive|without an OVF"):
        ova.read(tmp_path / "a.ova")


def test_a_file_with_a_hole_of_a_tebibyte_as_a_header(tmp_path: Path) -> None:
    with (tmp_path / "a.ova").open("wb") as file:
        file.write(header("x", (1 << 33) - 1, kind=b"L"))
        file.truncate(1 << 40)
    with pytest.raises(SpecError, match="a header claims"):
        ova.read(tmp_path / "a.ova")


def test_a_manifest_that_names_one_file_ten_thousand_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(ova, "_digest", lambda *words: read.append(words) or "0" * 40)
    manifest = b"SHA1(disk1.vmdk)= " + b"0" * 40 + b"\n"
    (tmp_path / "a.ova").write_bytes(tar(("a.ovf", ovf().encode()), ("a.mf", manifest * 10_000), ("disk1.vmdk", b"x")))
    assert ova.read(tmp_path / "a.ova").disks[0].part
    assert len(read) == 1


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_every_dialect_is_read(tmp_path: Path, format: int) -> None:
    path = tmp_path / "a.ova"
    path.write_bytes(tar(("a.ovf", ovf().encode()), ("n" * 120 + "/é", b""), ("disk1.vmdk", b"disk"), format=format))
    offset, size = ova.read(path).disks[0].part or (0, 0)
    assert path.read_bytes()[offset : offset + size] == b"disk"


# ── machine files ──


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a = " + b"[" * 100_000, "is not TOML"),
        (b"a = " + b"9" * 10_000, "is not TOML"),
        (b"name = '\xff'", "is not TOML"),
        (b"a = 1\n" * 1_000_000, "no machine file"),
        (b"cpu = { pin = '0-99999999999' }", "no host has a CPU"),
        (b"cpu = { pin = '" + b"9" * 10_000 + b"' }", "no host has a CPU"),
        (b'disk = ["a\\u0000b"]', "zero byte"),
        (b"seed = 5", "expected a table"),
    ],
)
def test_a_machine_file_that_is_none(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "m.toml").write_bytes(content)
    (tmp_path / "user-data").write_text("#cloud-config\n")
    with pytest.raises(SpecError, match=why):
        described(str(tmp_path / "m.toml"), {"user_data": str(tmp_path / "user-data") if b"seed" in content else None})


@pytest.mark.parametrize("depth", [3, 900])
def test_a_value_that_cannot_be_shown(depth: int) -> None:
    deep: object = 10**9999
    for _ in range(depth):
        deep = [deep]
    for value in (deep, {"x": deep}, 10**9999, "x" * 100_000):
        with pytest.raises(SpecError) as caught:
            load_spec({"memory": {"floor": value}, "name": value})
        assert len(str(caught.value)) < 4000
        assert json.dumps(caught.value.to_json())


def test_texts_that_nobody_can_write() -> None:
    for text in ("a\0b", "\ud800"):
        with pytest.raises(SpecError, match=r"disk\[0\]"):
            load_spec({"disk": [text]})
    assert load_spec({"disk": ["caf\udce9.qcow2"]}).disk[0].path == "caf\udce9.qcow2"  # a name in Latin-1


def test_user_data_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "user-data").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="is no text"):
        described("", {"user_data": str(tmp_path / "user-data")})


def test_options_that_are_deep() -> None:
    with pytest.raises((SpecError, ImageError)):
        described("", {"disk": ["size=" + "[" * 5000], "set": ["cpu.count=" + json.dumps("9" * 5000)]})


def test_the_last_cpu_there_can_be() -> None:
    assert CpuSet.parse("65535") == CpuSet({65535})
    with pytest.raises(ValueError, match="no host"):
        CpuSet.parse("65536")


@pytest.mark.parametrize("form", ["SHA256(disk1.vmdk)= {}\n", "SHA256 (disk1.vmdk) = {}\r\n", "SHA256(disk1.vmdk)={}\r\n"])
def test_manifests_as_tools_write_them(tmp_path: Path, form: str) -> None:
    """Spaces and CRLF occur; a macOS tar puts a file ``._NAME`` before each that has attributes."""
    path, disk = tmp_path / "a.ova", b"K" * 700
    for content, good in ((disk, True), (disk[1:] + b"k", False)):
        manifest = form.format(hashlib.sha256(disk).hexdigest()).encode()
        members = [("._a.ovf", b"\0\5\x16\7"), ("a.ovf", ovf().encode()), ("._a.mf", b"x"), ("a.mf", manifest)]
        path.write_bytes(tar(*members, ("._disk1.vmdk", b"\0"), ("disk1.vmdk", content)))
        if good:
            assert ova.read(path).disks[0].part
        else:
            with pytest.raises(ImageError, match="damaged"):
                ova.read(path)
