"""The guest under libvirt: a daemon of the bench's own in the foreground, with its own settings and folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Libvirt"]

_DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0</cmdline></os><features><acpi/></features><cpu mode='maximum'/>
<devices><emulator>{binary}</emulator><interface type='user'><model type='virtio'/></interface>
<serial type='file'><source path='{scratch}/{name}.log'/></serial>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
_OWN_FOLDERS = """
mkdir -p /run/libvirt /var/lib/libvirt /var/cache/libvirt
mount --bind "$1/etc" /etc/libvirt && mount --bind "$1/run" /run/libvirt || exit
mount --bind "$1/lib" /var/lib/libvirt && mount --bind "$1/cache" /var/cache/libvirt || exit
mkdir "$1/dev" && mount -t tmpfs -o mode=755 dev "$1/dev" || exit
for node in null zero full random urandom tty; do : >"$1/dev/$node" && mount --bind "/dev/$node" "$1/dev/$node" || exit; done
for folder in pts shm; do mkdir "$1/dev/$folder" && mount --bind "/dev/$folder" "$1/dev/$folder" || exit; done
if [ -e /dev/net/tun ]; then
    mkdir "$1/dev/net" && : >"$1/dev/net/tun" && mount --bind /dev/net/tun "$1/dev/net/tun" || exit
fi
ln -s pts/ptmx "$1/dev/ptmx" && ln -s /proc/self/fd "$1/dev/fd" && mount --rbind "$1/dev" /dev || exit
exec libvirtd --config "$1/etc/libvirtd.conf" --pid-file "$1/libvirtd.pid"
"""
"""Its own ``/dev`` has no ``kvm``: where that opens but cannot run a guest, libvirt looks at QEMU anew before every command,
which takes it seconds and would be measured as its own."""
_PAUSE = 0.1


@dataclass(frozen=True)
class Libvirt:
    """A running libvirtd with the guest defined in it."""

    uri: str
    differs: str = "machine q35, virtio network; virsh qemu-agent-command every 100 ms until guest-exec is answered"

    @classmethod
    def prepare(cls, stack: ExitStack, scratch: Path, binary: str, kernel: Path, initrd: Path) -> Libvirt | str:
        """Start libvirtd and define the guest; a reason where that cannot be."""
        if os.geteuid() != 0:
            return "the system's libvirtd is started as root"
        if not (shutil.which("libvirtd") and shutil.which("virsh")):
            return "libvirt is not installed (script/packages bench)"
        folder = scratch / "libvirt"
        for name in ("etc", "run", "lib", "cache"):
            (folder / name).mkdir(parents=True)
        (folder / "etc/libvirtd.conf").write_text(f'unix_sock_dir = "{folder}"\nauth_unix_rw = "none"\n')
        (folder / "etc/qemu.conf").write_text('stdio_handler = "file"\n')
        log = (folder / "libvirtd.log").open("wb")
        daemon = subprocess.Popen(["unshare", "--mount", "sh", "-c", _OWN_FOLDERS, "sh", folder], stdout=log, stderr=log)
        stack.callback(_stop, daemon)
        libvirt = cls(f"qemu:///system?socket={folder}/libvirt-sock")
        return libvirt._define(stack, folder, daemon, binary, kernel, initrd) or libvirt

    def _define(
        self, stack: ExitStack, folder: Path, daemon: subprocess.Popen[bytes], binary: str, kernel: Path, initrd: Path
    ) -> str:
        """Define the guest; why that cannot be, empty when it is."""
        for _ in range(200):
            if daemon.poll() is None and self._virsh("version").returncode == 0:
                break
            time.sleep(0.1)
        else:
            return f"libvirtd did not come up: {(folder / 'libvirtd.log').read_text()[-300:]}"
        self._virsh("undefine", "bench")
        domain = folder / "bench.xml"
        (folder / "described.xml").write_text(
            _DOMAIN.format(name="{name}", kernel=kernel, initrd=initrd, binary=binary, scratch=folder)
        )
        domain.write_text((folder / "described.xml").read_text().format(name="bench"))
        defined = self._virsh("define", str(domain))
        if defined.returncode:
            return f"libvirt does not take {binary}: {defined.stderr.strip()[-300:]}"
        stack.callback(self._virsh, "undefine", "bench")
        return ""

    def _virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["virsh", "-q", "-c", self.uri, *words], check=False, capture_output=True, text=True)

    def many_answered(self, count: int) -> float:
        """Seconds from the first of so many ``virsh start`` until each guest has run a command; they are destroyed then."""
        names = [f"many{number}" for number in range(count)]
        folder = Path(self.uri.partition("socket=")[2]).parent
        for name in names:
            domain = folder / f"{name}.xml"
            domain.write_text((folder / "described.xml").read_text().format(name=name))
            self._virsh("define", str(domain)).check_returncode()
        try:
            began = time.perf_counter()
            for name in names:
                self._virsh("start", name).check_returncode()
            for name in names:
                self._run(name, 900)
            return time.perf_counter() - began
        finally:
            for name in names:
                self._virsh("destroy", name)
                self._virsh("undefine", name)

    def _agent(self, name: str, command: str, **arguments: object) -> dict[str, object] | None:
        request = json.dumps({"execute": command, "arguments": arguments})
        done = self._virsh("qemu-agent-command", name, request)
        return dict(json.loads(done.stdout)["return"]) if done.returncode == 0 else None

    def answered(self) -> float:
        """Seconds from ``virsh start`` to the end of a guest command; the domain is destroyed then."""
        began = time.perf_counter()
        try:
            self._virsh("start", "bench").check_returncode()
            self._run()
            return time.perf_counter() - began
        finally:
            self._virsh("destroy", "bench")

    def restored(self, file: Path) -> float:
        """Seconds from ``virsh restore`` to the end of a guest command; the guest is saved to ``file`` before."""
        try:
            if not file.exists():
                self._virsh("start", "bench").check_returncode()
                self._run()
            else:
                self._virsh("restore", str(file)).check_returncode()
            self._virsh("save", "bench", str(file)).check_returncode()
            began = time.perf_counter()
            self._virsh("restore", str(file)).check_returncode()
            self._run()
            return time.perf_counter() - began
        finally:
            self._virsh("destroy", "bench")

    def _run(self, name: str = "bench", seconds: float = 120) -> None:
        """Run ``true`` in the guest."""
        deadline = time.monotonic() + seconds
        while (answer := self._agent(name, "guest-exec", path="true")) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("the guest under libvirt did not answer")
            time.sleep(_PAUSE)
        while not (self._agent(name, "guest-exec-status", pid=answer["pid"]) or {}).get("exited"):
            time.sleep(_PAUSE)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
