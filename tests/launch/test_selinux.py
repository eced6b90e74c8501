"""SELinux labels keep machines apart; the policy compiles by SELinux's own compiler, and its search says what it allows."""

from __future__ import annotations

import bz2
import dataclasses
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden.cases import Case, facts, image_of, spec_of

from tinamou.blueprint import Plan, StartHelper, Why
from tinamou.blueprint.stored import plain, plan_from
from tinamou.errors import PlanError
from tinamou.facts import Place
from tinamou.facts.labels import POLICY, TYPES
from tinamou.planner import plan
from tinamou.probe.selinux import probe_selinux
from tinamou.spec import load_spec
from tinamou.state.uids import FIRST
from tinamou.tuning.selinux import label, with_label

WHOSE = "system_u:system_r"


ATTRIBUTES = (
    "domain", "file_type", "exec_type", "filesystem_type", "sysctl_type", "port_type", "node_type",
    "non_security_file_type", "tmpfsfile", "unconfined_domain_type", "fixed_disk_raw_read", "fixed_disk_raw_write",
)  # fmt: skip
"""What the policies of all distributions call so; every other name in tinamou's that it does not declare is a type."""


def planned(
    spec: str = "tiny",
    accel: str = "kvm-works",
    *,
    whose: str = WHOSE,
    refused: str = "",
    uid: int | None = FIRST,
    folder: str = "/machines/web",
    **security: str,
) -> Plan:
    case = Case(spec, "10.0", "x86_64", accel)
    known = facts(case, image_of(case), Place("web", folder, uid, 0))
    host = dataclasses.replace(known.host, selinux=whose, selinux_refused=refused)
    asked = dataclasses.replace(spec_of(case), security=load_spec({"security": security}).security)
    return plan(asked, dataclasses.replace(known, host=host))


def kind_of(made: Plan) -> str:
    return made.confinement.label.split(":")[2].removeprefix("tinamou_").removesuffix("_t")


def test_two_machines_share_no_pair_of_categories() -> None:
    pairs = {label(WHOSE, "qemu", FIRST + number).partition("_t:")[2] for number in range(20_000)}
    assert len(pairs) == 20_000
    for low, high in (re.fullmatch(r"s0:c(\d+),c(\d+)", pair).groups() for pair in pairs):  # type: ignore[union-attr]
        assert 0 <= int(low) < int(high) < 1024
    assert label(WHOSE, "qemu", 523_775) == f"{WHOSE}:tinamou_qemu_t:s0:c1022,c1023"


def test_a_helper_has_its_machines_categories_and_a_type_of_its_own() -> None:
    helper = StartHelper("virtiofsd-0", ("virtiofsd",), "/s", Why("spec share", "serves"))
    mine = label(WHOSE, "tcg_net", 7)
    assert with_label(helper, mine).label == mine.replace("tcg_net", "virtiofsd")
    assert with_label(helper, "") is helper
    assert with_label(dataclasses.replace(helper, name="other"), mine).label == ""


def test_qemu_may_make_code_only_where_it_emulates_and_speak_only_where_it_must() -> None:
    assert kind_of(planned("tiny", "kvm-works")) in ("qemu", "qemu_net")
    assert kind_of(planned("tiny", "tcg")).startswith("tcg")
    kinds = {kind_of(planned(spec, "tcg")) for spec in ("tiny", "two-cpus", "networks")}
    assert "tcg_net" in kinds
    assert kind_of(planned("tiny", "kvm-works", syscalls="qemu")) == "tcg_net", "what it may do is not known then"


def test_a_machine_of_a_user_is_told_apart_by_its_folder() -> None:
    one, other = (planned(uid=None, folder=f"/home/a/{name}").confinement.label for name in ("one", "other"))
    assert one != other
    assert one == planned(uid=None, folder="/home/a/one").confinement.label


def test_no_label_without_selinux_and_a_word_where_it_has_no_policy() -> None:
    assert planned(whose="").confinement.label == ""
    without = planned(refused="the policy has no label")
    assert without.confinement.label == ""
    assert any("no SELinux label: the policy has no label" in note.text for note in without.notes)
    assert planned(selinux="off").confinement.label == ""
    for missing in ({"whose": ""}, {"refused": "the policy has no label"}):
        with pytest.raises(PlanError, match=r"security\.selinux"):
            planned(**missing, selinux="require")


def test_a_kept_plan_has_its_label_and_an_older_one_has_none() -> None:
    made = planned()
    data = plain(made)
    assert plan_from(data).confinement.label == made.confinement.label != ""
    data["confinement"].pop("label")
    assert plan_from(data).confinement.label == ""


# ── what the host says ──


@pytest.fixture
def selinuxfs(tmp_path: Path) -> Path:
    """A stand-in for its files: each answers with what was asked of it, as long as it is a plain file."""
    place = tmp_path / "selinux"
    for kind, right in (("process", "transition"), ("process2", "nnp_transition")):
        (place / "class" / kind / "perms").mkdir(parents=True)
        (place / "class" / kind / "index").write_text("2")
        (place / "class" / kind / "perms" / right).write_text("2")
    (place / "enforce").write_text("1")
    return place


def test_a_host_without_selinux_has_no_user_and_role(tmp_path: Path) -> None:
    assert probe_selinux(tmp_path / "none") == ("", "")


def test_a_policy_without_tinamous_types_is_named_with_what_loads_it(selinuxfs: Path, tmp_path: Path) -> None:
    (tmp_path / "current").write_text("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023\0")
    whose, refused = probe_selinux(selinuxfs, tmp_path / "current")
    assert whose == "unconfined_u:unconfined_r"
    assert f"semodule -i {POLICY}" in refused


# ── the policy itself, by SELinux's own compiler and its own search ──


def _lists(text: str) -> list:
    """CIL as nested lists of words."""
    stack: list[list] = [[]]
    for word in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    return stack[0]


def _rules(lists: list) -> Iterator[list]:
    for one in lists:
        if one and one[0] == "optional":
            yield from _rules(one[2:])
        else:
            yield one


def _words(one: object) -> Iterator[str]:
    if isinstance(one, str):
        yield one
    else:
        for inner in one:  # type: ignore[attr-defined]
            yield from _words(inner)


def a_base(text: str) -> str:
    """The least policy that tinamou's can stand on: what it names and does not declare."""
    rules = list(_rules(_lists(text)))
    classes: dict[str, set[str]] = {}
    for rule in rules:
        if rule[0] == "allow":
            classes.setdefault(rule[3][0], set()).update(rule[3][1])
    own = {rule[1] for rule in rules if rule[0] in ("type", "typeattribute")}
    named = {word for rule in rules if rule[0] == "allow" for word in rule[1:3]}
    named |= {word for rule in rules if rule[0] == "typeattributeset" for word in (rule[1], *_words(rule[2]))}
    types = named - own - set(ATTRIBUTES) - {"self"}
    categories = " ".join(f"c{number}" for number in range(1024))
    classes["file"].add("execute_no_trans")
    lines = ["(mls true)", "(handleunknown allow)", "(sid kernel)", "(sidorder (kernel))"]
    lines += [f"(class {name} ({' '.join(sorted(rights))}))" for name, rights in sorted(classes.items())]
    lines += [f"(classorder ({' '.join(sorted(classes))}))", "(sensitivity s0)", "(sensitivityorder (s0))"]
    lines += [f"(category c{number})" for number in range(1024)]
    lines += [
        f"(categoryorder ({categories}))",
        f"(sensitivitycategory s0 ({categories}))",
        "(user system_u)",
        "(role system_r)",
    ]
    lines += [f"(role {role})" for role in ("unconfined_r", "sysadm_r", "staff_r", "object_r")]
    lines += [f"(userrole system_u {role})" for role in ("system_r", "object_r")]
    lines += ["(userlevel system_u (s0))", f"(userrange system_u ((s0) (s0 ({categories}))))"]
    lines += [f"(typeattribute {name}) (type a_{name}) (typeattributeset {name} (a_{name}))" for name in ATTRIBUTES]
    lines += [f"(type {name})" for name in sorted(types | {"kernel_t"})]
    lines += ["(roletype system_r kernel_t)", "(sidcontext kernel (system_u system_r kernel_t ((s0) (s0))))"]
    return "\n".join(lines) + "\n"


def compiled(tmp_path: Path, *files: Path) -> Path:
    if not shutil.which("secilc") or not shutil.which("sesearch"):
        pytest.skip("secilc or sesearch is not installed (packages secilc, setools)")
    made = tmp_path / "policy"
    words = ["secilc", "-c", "33", "-o", str(made), "-f", "/dev/null", *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return made


def allowed(policy: Path, source: str, *words: str) -> list[str]:
    """What the search finds: ``target:class right …``, of conditional rules too."""
    done = subprocess.run(["sesearch", "-A", "-s", source, *words, str(policy)], capture_output=True, text=True, check=True)
    return [line.removeprefix("allow ").split(None, 1)[1] for line in done.stdout.splitlines() if line.startswith("allow")]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "base.cil").write_text(a_base(Path(POLICY).read_text()))
    return compiled(folder, folder / "base.cil", Path(POLICY))


@functools.cache
def rights(policy: Path, kind: str) -> dict[str, dict[str, set[str]]]:
    """What processes of this kind may: by the class of what they act on, and by its type or attribute."""
    found: dict[str, dict[str, set[str]]] = {}
    for rule in allowed(policy, f"tinamou_{kind}_t"):
        target, what, *words = re.findall(r"\w+", rule)
        found.setdefault(what, {}).setdefault(target.removeprefix("a_"), set()).update(words)
    return found


def to_what(policy: Path, kind: str, what: str, right: str) -> set[str]:
    return {target for target, have in rights(policy, kind).get(what, {}).items() if right in have}


EMULATORS = tuple(kind for kind in TYPES if kind.startswith(("qemu", "tcg")))
HANDED = {"non_security_file_type", "filesystem_type"}
MEMORY = {"tinamou_memory", "hugetlbfs_t"}
OF_THE_SYSTEM = {
    "exec_type", "bin_t", "usr_t", "lib_t", "ld_so_t", "ld_so_cache_t", "etc_t", "locale_t", "proc_t", "sysfs_t",
    "sysctl_type", "net_conf_t",
}  # fmt: skip


@pytest.mark.parametrize("kind", EMULATORS)
def test_qemu_opens_no_file_that_it_could_be_handed(policy: Path, kind: str) -> None:
    own = {f"tinamou_{kind}_t"}
    assert to_what(policy, kind, "file", "open") - {"net_conf_t"} == (OF_THE_SYSTEM | MEMORY | own) - {"net_conf_t"}
    for right in ("write", "append"):
        assert to_what(policy, kind, "file", right) - own == HANDED, "it reads and writes what it was handed"


@pytest.mark.parametrize("kind", EMULATORS)
def test_qemu_makes_and_removes_no_name_and_has_no_capability(policy: Path, kind: str) -> None:
    for right in ("write", "add_name", "remove_name", "mounton"):
        assert not to_what(policy, kind, "dir", right), right
    assert not {"capability", "cap_userns"} & set(rights(policy, kind))
    assert not to_what(policy, kind, "process", "transition"), "it becomes nothing else"
    assert not to_what(policy, kind, "file", "execute_no_trans"), "it runs nothing"
    assert to_what(policy, kind, "unix_stream_socket", "connectto") == {f"tinamou_{kind}_t", "tinamou_wired"}


def test_code_and_network_are_for_the_kinds_that_need_them(policy: Path) -> None:
    kinds = (*TYPES, "reader")
    assert {kind for kind in kinds if to_what(policy, kind, "process", "execmem")} == {"tcg", "tcg_net"}
    speaks = {kind for kind in kinds if to_what(policy, kind, "tcp_socket", "create")}
    assert speaks == {"qemu_net", "tcg_net", "passt", "dnsmasq"}


def test_what_reads_files_from_elsewhere_has_no_socket_makes_no_name_and_runs_nothing(policy: Path) -> None:
    had = rights(policy, "reader")
    every = {what: set().union(*of.values()) for what, of in had.items()}
    sockets = {what for what in every if what.endswith("socket")}
    assert sockets and not {"create", "connect", "connectto", "bind"} & set().union(*(every[what] for what in sockets))
    assert to_what(policy, "passt", "unix_stream_socket", "create"), "a socket of another kind's is found"
    assert every["dir"] == {"getattr", "open", "read", "search"}
    assert not {"execute_no_trans", "create", "unlink", "rename", "link"} & every["file"]
    assert not {"transition", "execmem", "ptrace"} & every["process"]
    devices = {"null_device_t", "zero_device_t", "random_device_t", "urandom_device_t"}
    assert to_what(policy, "reader", "chr_file", "open") == devices
    assert had["capability"] == {"tinamou_reader_t": {"dac_read_search"}}
    assert {"open", "read", "write", "setattr"} <= had["file"]["non_security_file_type"]


def test_the_compiler_refuses_what_a_policy_forbids(tmp_path: Path) -> None:
    """The check can fail: with a rule against it, the same policy does not compile."""
    base = tmp_path / "base.cil"
    base.write_text(a_base(Path(POLICY).read_text()) + "(neverallow domain non_security_file_type (file (write)))\n")
    with pytest.raises(AssertionError, match="neverallow check failed"):
        compiled(tmp_path, base, Path(POLICY))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_stands_in_the_distributions_policy(tmp_path: Path) -> None:
    """Every name it uses is there, nothing forbids a rule of it, and what every domain gets is no way around."""
    if not shutil.which("apt-get") or not Path("/usr/libexec/selinux/hll/pp").exists():
        pytest.skip("no apt, or no /usr/libexec/selinux/hll/pp (package policycoreutils or semodule-utils)")
    got = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "selinux-policy-default"]
    if subprocess.run(got, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("selinux-policy-default cannot be downloaded")
    (package,) = tmp_path.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path / "root"], check=True)
    files = []
    for packed in sorted((tmp_path / "root/usr/share/selinux/default").glob("*.pp.bz2")):
        module, source = tmp_path / packed.stem, tmp_path / f"{packed.stem}.cil"
        module.write_bytes(bz2.decompress(packed.read_bytes()))
        subprocess.run(["/usr/libexec/selinux/hll/pp", module, source], check=True)
        files.append(source)
    assert len(files) > 100
    policy = compiled(tmp_path, *files, Path(POLICY))
    for kind in EMULATORS:
        opened = allowed(policy, f"tinamou_{kind}_t", "-c", "file", "-p", "open,write")
        assert all(" open" not in one or " write" not in one or one.startswith(f"tinamou_{kind}_t:") for one in opened)
        assert not allowed(policy, f"tinamou_{kind}_t", "-c", "capability")
    for kind in (*EMULATORS, "reader"):
        assert not allowed(policy, f"tinamou_{kind}_t", "-t", "shadow_t", "-c", "file", "-p", "read")
