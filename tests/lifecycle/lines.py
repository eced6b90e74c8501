"""Lines for every verb that ``tinamou`` has, each with what has to be so before it, for tests that interrupt them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from moments import LONG, NEW

MACHINE = """name = "other"
memory = "192M"
disk = [{size = "8M"}]
net = ["user"]
"""
LIBVIRT = """<domain type='kvm'><name>other</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='FOLDER/small.qcow2'/>
<target dev='vda' bus='virtio'/></disk><interface type='user'><model type='virtio'/></interface></devices></domain>
"""
BROKER = """kind = "sev-snp"
"""


@dataclass(frozen=True)
class Line:
    """A verb's line, where ``{w}`` is a folder of the test's.

    ``wanted`` is the state the machine ``m`` is in before, ``none`` for none; ``before`` are lines that are said before,
    once; after ``after`` seconds it has gone far enough, where it goes on for ever or waits. One that ``reads`` changes
    nothing, and what ``adds`` to a running machine would pile up.
    """

    verb: str
    rest: str = ""
    wanted: str = "stopped"
    before: tuple[str, ...] = ()
    after: float = LONG
    env: dict[str, str] = field(default_factory=dict)
    reads: bool = False
    adds: bool = False

    @property
    def words(self) -> str:
        return f"{self.verb} {self.rest}".strip()


def reading(verb: str, rest: str = "", wanted: str = "stopped", *before: str) -> Line:
    """A line that changes nothing: the machine need not be made anew after it."""
    return Line(verb, rest, wanted, before, reads=True)


def waiting(verb: str, rest: str = "", after: float = 1.5, wanted: str = "running") -> Line:
    """A line that waits for a guest that never answers, or serves for ever."""
    return Line(verb, rest, wanted, after=after)


FIRST = "snapshot create m first"
CACHE = {"TINAMOU_CACHE": "{w}/cache"}
KEPT = "backup create m {w}/kept"
LINES = [
    Line("run", f"-d --name m {NEW}", "none"),
    waiting("run", f"--name m {NEW}", 1.5, "none"),
    waiting("run", "--name m --disk size=8M --set memory.size=192M -- true", 2.5, "none"),
    waiting("install", "{w}/disc.iso --name m --disk size=8M", 3.0, "none"),
    reading("ls"),
    reading("ls", "--json", "running"),
    reading("show", "m", "running"),
    reading("logs", "m", "running"),
    waiting("logs", "--follow m", 1.0),
    waiting("console", "m", 1.0),
    waiting("ssh", "m -- true"),
    waiting("exec", "m -- true"),
    waiting("cp", "/etc/hostname m:/tmp/x"),
    Line("screenshot", "m {w}/out.png", "running"),
    Line("type", "m hello", "running"),
    Line("keys", "m ctrl-alt-delete", "running"),
    reading("display", "--print m", "running"),
    Line("monitor", "m query-status", "running"),
    waiting("gdb", "--server m", 1.0),
    reading("trace", "m --list memory_region_*", "running"),
    waiting("trace", "m memory_region_*", 1.0),
    Line("dump", "m {w}/dumped", "running"),
    Line("allow", "m nobody"),
    Line("set", "m memory=256M"),
    Line("set", "m cpu.count=2", "running", adds=True),
    Line("edit", "m --file {w}/edited.toml"),
    Line("rename", "m other"),
    Line("clone", "m other"),
    Line("clone", "--linked m other", before=("template m",)),
    Line("template", "m"),
    Line("commit", "m made", env=CACHE),
    Line("export", "m {w}/exported"),
    Line("import", "{w}/before --name other", before=("export m {w}/before",)),
    Line("start", "--no-wait m"),
    waiting("restart", "m", 3.0),
    Line("autostart", "m", env={"TINAMOU_UNITS": "{w}/units"}),
    Line("stop", "m", "running"),
    Line("kill", "m", "running"),
    Line("reset", "m", "running"),
    Line("pause", "m", "running"),
    Line("suspend", "m", "running"),
    Line("resume", "m", "paused"),
    reading("upgrade", "--list", "running"),
    Line("upgrade", "m", "running"),
    Line("move", "m nowhere", "running"),
    Line("copy", "m nowhere"),
    Line("evacuate", "nowhere"),
    Line("settle", "m"),
    Line("replicate", "m nowhere"),
    reading("replica ls"),
    Line("replica take", "nothing", "none"),
    Line("replica rm", "nothing", "none"),
    Line("receive"),
    Line("rm", "m"),
    Line("rm", "-f m", "running"),
    Line("checkpoint", "m", "running", adds=True),
    reading("checkpoints ls"),
    reading("checkpoints show", "none"),
    reading("checkpoints tree"),
    Line("checkpoints rm", "none"),
    Line("checkpoints send", "none nowhere"),
    Line("checkpoints export", "none {w}/exported"),
    Line("checkpoints import", "{w}/small.raw"),
    Line("checkpoints restore", "none"),
    waiting("pool create", f"web --size 1 {NEW.replace('--no-wait', '')}", 3.0, "none"),
    reading("pool ls"),
    reading("pool show", "web"),
    Line("pool take", "web"),
    Line("pool run", "web -- true"),
    Line("pool rm", "web"),
    waiting("fork", "m"),
    reading("confine", "m", "running"),
    reading("plan", "--why"),
    reading("plan", "{w}/other.toml"),
    reading("place", "{w}/other.toml"),
    reading("cluster resource", "m"),
    reading("cluster node", "web"),
    reading("convert", "{w}/libvirt.xml"),
    Line("convert", "{w}/libvirt.xml --import --name other"),
    reading("attest verify", "{w}/small.raw"),
    reading("attest log", "{w}/small.raw"),
    waiting("attest quote", "m"),
    waiting("attest fetch", "m"),
    reading("attest expect", "--kind sev-snp --firmware {w}/small.raw --cpus 1"),
    reading("attest id-block", f"{'0' * 96} --key {{w}}/small.raw"),
    reading("attest certificates", "{w}/small.raw"),
    reading("attest secret", "{w}/guest {w}/small.raw"),
    reading("attest serve", "{w}/broker.toml"),
    reading("attest session", "{w}/small.raw"),
    Line("attest launch", "m"),
    waiting("accel", after=4.0, wanted="none"),
    reading("image ls"),
    waiting("image build", "tiny --refresh", 4.0, "none"),
    Line("image pull", "nothing-of-this-name", "none"),
    reading("image show", "tiny", "none"),
    reading("image check", "tiny", "none"),
    Line("image rm", "made", "none", ("image import {w}/small.qcow2 made --arch x86_64",), env=CACHE),
    Line("image import", "{w}/small.qcow2 made --arch x86_64", "none", env=CACHE),
    Line("image inject", "{w}/small.qcow2 made --drivers {w}/small.qcow2", "none", env=CACHE),
    Line("image convert", "{w}/small.qcow2 {w}/out.raw", "none"),
    Line("image create", "{w}/new.qcow2 8M", "none"),
    Line("image resize", "{w}/small.qcow2 16M", "none"),
    Line("image rebase", "{w}/upper.qcow2 {w}/small.qcow2", "none"),
    Line("snapshot create", "m"),
    reading("snapshot ls", "m", "stopped", FIRST),
    reading("snapshot tree", "m", "stopped", FIRST),
    reading("snapshot show", "m first", "stopped", FIRST),
    Line("snapshot revert", "m first", before=(FIRST,)),
    Line("snapshot rm", "m first", before=(FIRST,)),
    Line("snapshot flatten", "m", before=(FIRST,)),
    Line("snapshot rename", "m first second", before=(FIRST,)),
    Line("snapshot note", "m first words", before=(FIRST,)),
    Line("snapshot schedule", "m --every 1h", env={"TINAMOU_UNITS": "{w}/units"}),
    Line("snapshot unschedule", "m", env={"TINAMOU_UNITS": "{w}/units"}),
    Line("snapshot scheduled", "m --label hourly --keep 2"),
    reading("disk ls", "m"),
    Line("disk add", "m size=8M"),
    Line("disk rm", "m disk1", before=("disk add m size=8M",)),
    Line("disk resize", "m disk0 16M"),
    Line("disk limit", "m disk0 --iops 100"),
    Line("disk insert", "m disk0 {w}/small.raw"),
    Line("disk eject", "m disk0"),
    Line("check", "m"),
    Line("backup create", "m {w}/backup"),
    reading("backup ls", "{w}/kept", "stopped", KEPT),
    reading("backup verify", "{w}/kept", "stopped", KEPT),
    Line("backup restore", "{w}/kept other", before=(KEPT,)),
    Line("backup drill", "{w}/kept --timeout 3", before=(KEPT,), after=4.0),
    reading("pci ls"),
    Line("pci take", "00:1f.7"),
    Line("pci give", "00:1f.7"),
    Line("pci create-vfs", "00:1f.7 2"),
    Line("pci remove-vfs", "00:1f.7"),
    Line("pci create-mdev", "00:1f.7 nothing"),
    Line("pci remove-mdev", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"),
    Line("pci mig", "00:1f.7"),
    Line("pci create-mig", "00:1f.7 1g.5gb"),
    Line("pci remove-mig", "00:1f.7 1"),
    Line("pci measure", "00:1f.7"),
    reading("pci check", "m"),
    waiting("stats", "m --interval 0.2", 2.0),
    waiting("top", "m", 1.0),
    waiting("ui", "", 1.0),
    Line("watch", "--once", "running"),
    waiting("watch", "--interval 0.2", 1.5),
    waiting("doctor", after=5.0, wanted="none"),
    waiting("doctor", "m", 3.0),
    Line("net add", "m passt", "running", adds=True),
    Line("net add", "m user"),
    Line("net rm", "m net1", before=("net add m user",)),
    Line("net link", "m down", "running"),
    Line("net rate", "m --inward 1M", "running"),
    Line("net set", "m net0 model=e1000e"),
    reading("net ls", "", "running"),
    waiting("net diagnose", "m", 3.0),
    waiting("net compare", "", 4.0, "none"),
    reading("net stats", "m", "running"),
    waiting("net capture", "m --seconds 1 --out {w}/packets.pcap", 3.0),
    waiting("tune", "{w}/other.toml --rounds 1", 4.0, "none"),
    Line("host secure-boot-keys", "{w}/keys", "none"),
    Line("host record", "{w}/host.json", "none"),
    reading("host room"),
    reading("host"),
    Line("host repair", wanted="running"),
    reading("host topology", wanted="none"),
    Line("host add", "there nobody@localhost --port 1", "none"),
    reading("host ls"),
    Line("host rm", "there", "none"),
    reading("host check", wanted="none"),
    waiting("serve", "--socket {w}/served", 2.5, "none"),
    Line("token create", "web --verb ls"),
    reading("token ls"),
    Line("token revoke", "web", before=("token create web --verb ls",)),
    waiting("mcp", "", 2.0, "none"),
    reading("completion", "bash", "none"),
    reading("schema", "", "none"),
]
"""At least one for each verb of `tinamou.cli.verbs`, which a test compares."""


def material(folder: Path) -> None:
    """The files that the lines name."""
    folder.mkdir(exist_ok=True)
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "units").mkdir(exist_ok=True)
    (folder / "other.toml").write_text(MACHINE)
    (folder / "edited.toml").write_text(MACHINE.replace("other", "m").replace("192M", "256M"))
    (folder / "libvirt.xml").write_text(LIBVIRT.replace("FOLDER", str(folder)))
    (folder / "broker.toml").write_text(BROKER)
    (folder / "small.raw").write_bytes(bytes(1 << 20))
    (folder / "disc.iso").write_bytes(bytes(1 << 20))
    for name, base in (("small", ()), ("upper", ("-b", str(folder / "small.qcow2"), "-F", "qcow2"))):
        image = str(folder / f"{name}.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, image, "8M"], check=True)
