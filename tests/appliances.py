"""Descriptions of machines of other virtualizers for tests, and an OVA built around a real disk."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

VMX = """
.encoding = "UTF-8"
config.version = "8"
displayName = "Web Server"
guestOS = "{guest}"
memsize = "2048"
numvcpus = "4"
cpuid.coresPerSocket = "2"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "{disk}"
ethernet0.present = "TRUE"
ethernet0.connectionType = "nat"
ethernet0.virtualDev = "e1000"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:aa:bb:cc"
{more}
"""

OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References><File ovf:href="{href}" ovf:id="file1" {attributes}/></References>
  <DiskSection><Info>disks</Info>
    <Disk ovf:capacity="4" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="vmdisk1" ovf:fileRef="file1"/>
    <Disk ovf:capacity="64" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="vmdisk2"/>
  </DiskSection>
  <NetworkSection><Info>networks</Info><Network ovf:name="NAT"/></NetworkSection>
  <VirtualSystem ovf:id="greeter">
    <Info>one machine</Info><Name>greeter</Name>
    <OperatingSystemSection ovf:id="96" vmw:osType="debian10_64Guest"><Info>os</Info></OperatingSystemSection>
    <VirtualHardwareSection><Info>hardware</Info>
      <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ElementName>2 CPUs</rasd:ElementName>
        <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:InstanceID>2</rasd:InstanceID><rasd:ElementName>memory</rasd:ElementName>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>256</rasd:VirtualQuantity></Item>
      <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ElementName>SCSI</rasd:ElementName>
        <rasd:ResourceType>6</rasd:ResourceType><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType></Item>
      <Item><rasd:InstanceID>4</rasd:InstanceID><rasd:ElementName>disk 1</rasd:ElementName><rasd:Parent>3</rasd:Parent>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>5</rasd:InstanceID><rasd:ElementName>disk 2</rasd:ElementName><rasd:Parent>3</rasd:Parent>
        <rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>6</rasd:InstanceID><rasd:ElementName>network</rasd:ElementName>
        <rasd:Connection>NAT</rasd:Connection><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>7</rasd:InstanceID><rasd:ElementName>floppy</rasd:ElementName>
        <rasd:ResourceType>14</rasd:ResourceType></Item>
      {more}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""

VBOX = """<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
  <Machine uuid="{{11111111-1111-1111-1111-111111111111}}" name="Box 1" OSType="{guest}">
    <MediaRegistry>
      <HardDisks>
        <HardDisk uuid="{{aaaa}}" location="{disk}" format="VDI">
          <HardDisk uuid="{{cccc}}" location="Snapshots/c.vdi"/></HardDisk>
      </HardDisks>
      <DVDImages><Image uuid="{{dddd}}" location="install.iso"/></DVDImages>
    </MediaRegistry>
    <Hardware>
      <CPU count="2" executionCap="50"/><Memory RAMSize="1024"/><Firmware type="EFI"/>
      <Boot><Order position="1" device="HardDisk"/><Order position="2" device="DVD"/></Boot>
      <Network>
        <Adapter slot="0" enabled="true" MACAddress="080027AABBCC" type="82540EM">
          <NAT><Forwarding name="ssh" proto="1" hostip="127.0.0.1" hostport="2222" guestport="22"/></NAT>
        </Adapter>
        <Adapter slot="1" enabled="true" MACAddress="080027AABBCD" type="virtio"><InternalNetwork name="lab"/></Adapter>
        <Adapter slot="2" enabled="false"/>
      </Network>
      <AudioAdapter enabled="true" controller="HDA"/>
      <SharedFolders><SharedFolder name="home" hostPath="/home/me" writable="true"/></SharedFolders>
      <StorageControllers>
        <StorageController name="SATA" type="AHCI">
          <AttachedDevice type="HardDisk" port="0" device="0"><Image uuid="{{{attached}}}"/></AttachedDevice>
          <AttachedDevice type="DVD" port="1" device="0"><Image uuid="{{dddd}}"/></AttachedDevice>
        </StorageController>
      </StorageControllers>
    </Hardware>
  </Machine>
</VirtualBox>
"""


def vmx(disk: str = "web.vmdk", guest: str = "debian12-64", more: str = "") -> str:
    return VMX.format(disk=disk, guest=guest, more=more)


def ovf(href: str = "disk1.vmdk", attributes: str = "", more: str = "") -> str:
    return OVF.format(href=href, attributes=attributes, more=more)


def vbox(disk: str = "box.vdi", guest: str = "Debian_64", attached: str = "aaaa") -> str:
    return VBOX.format(disk=disk, guest=guest, attached=attached)


def as_vmdk(raw: Path, target: Path, kind: str = "streamOptimized") -> Path:
    words = ["qemu-img", "convert", "-O", "vmdk", "-o", f"subformat={kind}", str(raw), str(target)]
    subprocess.run(words, check=True)
    return target


def ova(target: Path, disk: Path, description: str | None = None, *, digest: str = "") -> Path:
    """An OVA of the description and the disk, with a manifest."""
    folder = target.parent / f"{target.name}.d"
    folder.mkdir()
    (folder / "greeter.ovf").write_text(description or ovf())
    digest = digest or hashlib.sha256(disk.read_bytes()).hexdigest()
    (folder / "greeter.mf").write_text(f"SHA256(disk1.vmdk)= {digest}\n")
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(folder / "greeter.ovf", "greeter.ovf")
        archive.add(folder / "greeter.mf", "greeter.mf")
        archive.add(disk, "disk1.vmdk")
    return target
