"""Attacks by sockets: services of the host, the networks around it, what the kernel tells of both."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

from attacks.attacker import Attacker, House, Tries, Walled, attack, inet, unix
from attacks.puppet import Refused

_NETLINK = {"route": 0, "audit": 9, "uevent": 15, "generic": 16, "netfilter": 12, "xfrm": 6}


@attack("connect to services on 127.0.0.1")
def services(house: House) -> Tries:
    port = house.tcp.getsockname()[1]
    return {"127.0.0.1": lambda a: a.connects(socket.AF_INET, inet(port))}


@attack("send to services by UDP")
def datagrams(house: House) -> Tries:
    def sends(a: Attacker) -> None:
        made = a.connects(socket.AF_INET, inet(house.udp.getsockname()[1]), socket.SOCK_DGRAM)
        a.call("write", made, "attack", 6)
        house.udp.settimeout(0.3)
        try:
            house.udp.recv(16)
        except TimeoutError:
            raise Walled("nothing arrived") from None

    return {"UDP": sends}


@attack("connect to a service by its abstract socket")
def abstract_sockets(house: House) -> Tries:
    return {house.abstract: lambda a: a.connects(socket.AF_UNIX, unix("\0" + house.abstract))}


@attack("connect to a service by its socket's path, which everybody may")
def path_sockets(house: House) -> Tries:
    found: Tries = {str(house.sockets): lambda a: a.connects(socket.AF_UNIX, unix(house.sockets))}
    bus = Path("/run/dbus/system_bus_socket")
    return found | ({str(bus): lambda a: a.connects(socket.AF_UNIX, unix(bus))} if bus.exists() else {})


@attack("listen for connections: on all addresses, on an abstract name others might use")
def listening(house: House) -> Tries:
    def listens(a: Attacker) -> None:
        made = a.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
        a.call("bind", made, inet(0, "0.0.0.0"), 16)
        a.call("listen", made, 1)
        name = bytearray(16)
        a.call("getsockname", made, name, struct.pack("<I", 16))
        try:
            socket.create_connection(("127.0.0.1", struct.unpack(">H", name[2:4])[0]), 0.5).close()
        except OSError:
            raise Walled("a network of its own") from None

    def squats(a: Attacker) -> None:
        made, name = a.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0), f"attack-{a.copy.pid}"
        a.call("bind", made, address := unix("\0" + name), len(address))
        a.call("listen", made, 1)
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect("\0" + name)
            except OSError:
                raise Walled("a network of its own") from None

    return {"0.0.0.0": listens, "abstract": squats}


def _links(a: Attacker) -> None:
    """The names of the host's interfaces, by RTM_GETLINK."""
    made, said = a.call("socket", socket.AF_NETLINK, socket.SOCK_RAW, 0), bytearray(1 << 16)
    a.call("sendto", made, struct.pack("<IHHIIBxxx12x", 32, 18, 0x301, 1, 0, 0), 32, 0, 0, 0)
    length = a.call("recvfrom", made, said, len(said), 0, 0, 0)
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not any(name.encode() + b"\0" in said[:length] for name in others):
        raise Walled("a network of its own")


def _listeners(a: Attacker) -> None:
    """The host's listening sockets, by SOCK_DIAG."""
    made, said = a.call("socket", socket.AF_NETLINK, socket.SOCK_RAW, 4), bytearray(1 << 16)
    asked = struct.pack("<IHHII", 72, 20, 0x301, 1, 0) + struct.pack("<BBBxI48x", 2, 6, 0, 1 << 10)
    a.call("sendto", made, asked, len(asked), 0, 0, 0)
    length = a.call("recvfrom", made, said, len(said), 0, 0, 0)
    if struct.pack(">H", a.house.tcp.getsockname()[1]) not in said[:length]:
        raise Walled("a network of its own")


@attack("learn of the host's interfaces and connections by netlink")
def netlink(house: House) -> Tries:
    return {"interfaces": _links, "sock_diag": _listeners, "/proc/net": lambda a: a.reads("/proc/net/unix", b"/")}


@attack("make sockets the kernel has much code behind: netlink, vsock, packet, raw, AF_ALG, Bluetooth, CAN, XDP, SMC, TIPC")
def kinds_of_sockets(house: House) -> Tries:
    kinds = {"vsock": (40, 1, 0), "packet": (17, 3, 0x300), "raw": (2, 3, 255), "alg": (38, 5, 0), "bluetooth": (31, 3, 1)}
    kinds |= {
        "can": (29, 3, 1),
        "xdp": (44, 3, 0),
        "smc": (43, 1, 0),
        "tipc": (30, 1, 0),
        "key": (15, 3, 2),
        "qrtr": (42, 2, 0),
    }
    kinds |= {f"netlink {name}": (16, 3, number) for name, number in _NETLINK.items()}
    return {name: lambda a, kind=kind: a.call("socket", *kind) for name, kind in kinds.items()}


def _address(a: Attacker) -> None:
    """Another address for lo, by RTM_NEWADDR; the answer is an error code, 0 where it was done."""
    made, said = a.call("socket", socket.AF_NETLINK, socket.SOCK_RAW, 0), bytearray(4096)
    address = socket.inet_aton("127.254.253.252")
    asked = struct.pack("<IHHIIBBBBI", 40, 20, 0x405, 1, 0, socket.AF_INET, 32, 0, 0, 1)
    asked += struct.pack("<HH4sHH4s", 8, 2, address, 8, 1, address)
    a.call("sendto", made, asked, len(asked), 0, 0, 0)
    a.call("recvfrom", made, said, len(said), 0, 0, 0)
    if error := struct.unpack_from("<i", said, 16)[0]:
        raise Refused(-error, "RTM_NEWADDR")
    a.call("sendto", made, asked[:4] + struct.pack("<H", 21) + asked[6:], len(asked), 0, 0, 0)


@attack("change the host's network: an address, a link, the ARP table, the packet filter")
def host_network(house: House) -> Tries:
    down = struct.pack("<16sH22x", b"nosuchlink", 0)
    arp = struct.pack("<HxxI8xH14xI16x16s", socket.AF_INET, 0, 1, 0, b"lo")
    return {
        "RTM_NEWADDR": _address,
        "SIOCSIFFLAGS": lambda a: a.gets_to(
            "ioctl", a.call("socket", socket.AF_INET, socket.SOCK_DGRAM, 0), 0x8914, down, past=(errno.ENODEV,)
        ),
        "SIOCSARP": lambda a: a.gets_to(
            "ioctl", a.call("socket", socket.AF_INET, socket.SOCK_DGRAM, 0), 0x8955, arp, past=(errno.EINVAL, errno.ENODEV)
        ),
        "IPT_SO_GET_INFO": lambda a: a.gets_to(
            "getsockopt",
            a.call("socket", socket.AF_INET, socket.SOCK_DGRAM, 0),
            *(0, 64, bytearray(84), struct.pack("<I", 84)),
            past=(errno.ENOENT,),  # ENOPROTOOPT: a kernel without such tables, which asks for no right first
        ),
        "nf_tables": lambda a: a.call("socket", socket.AF_NETLINK, socket.SOCK_RAW, 12),
    }


@attack("reach other virtual machines, or the host, by vsock")
def vsock(house: House) -> Tries:
    address = struct.pack("<HHIIB3x", 40, 0, 9999, 0xFFFFFFFF, 0)
    return {"bind": lambda a: a.call("bind", a.call("socket", 40, 1, 0), address, 16)}
