"""User-data in every form of cloud-init's: told apart, and what it would skip is refused by its line."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest
from typed import call

from tinamou.parts.seed import SeedSpec
from tinamou.parts.user_data import kind_of

CONFIG = "#cloud-config\npackages: [vim]\nruncmd:\n  - echo hi\n"


def mime(*parts: tuple[str, str]) -> str:
    whole = MIMEMultipart()
    for text, kind in parts:
        whole.attach(MIMEText(text, kind.partition("/")[2], "utf-8" if not text.isascii() else "us-ascii"))
    return whole.as_string()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CONFIG, "text/cloud-config"),
        ("#cloud-config-archive\n- type: text/x-shellscript\n", "text/cloud-config-archive"),
        ("#!/bin/sh\n", "text/x-shellscript"),
        ("#include\nhttps://example.org/a\n", "text/x-include-url"),
        ("#include-once\nhttps://example.org/a\n", "text/x-include-once-url"),
        ("#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook"),
        ("#part-handler\n", "text/part-handler"),
        ("## template: jinja\n#cloud-config\nruncmd: [echo {{ v1.local_hostname }}]\n", "text/jinja2"),
        (mime((CONFIG, "text/cloud-config")), "mime"),
        ("From nobody Fri Jan 11 07:00:00 1980\n" + mime((CONFIG, "text/cloud-config")), "mime"),
        ("packages: [vim]\n", None),
        ("\ufeff#cloud-config\n", None),
        ("", None),
    ],
)
def test_kinds(text: str, kind: str | None) -> None:
    assert kind_of(text) == kind


def refused(text: str) -> str:
    return " ".join(str(one) for one in SeedSpec(user_data=text).problems())


GOOD = [
    CONFIG,
    CONFIG.replace("\n", "\r\n"),
    "#cloud-config\n",
    "#cloud-config-archive\n- {type: text/x-shellscript, content: '#!/bin/sh'}\n",
    "#cloud-config-archive\n- |\n  #!/bin/sh\n  a: [b\n- content: 'a: 1'\n- 3\n- {type: text/jinja2, content: 'a: [b'}\n",
    "## template: jinja\n#cloud-config\nruncmd: [{% if 1 %}a{% endif %}]\n",
    mime((CONFIG, "text/cloud-config"), ("#!/bin/sh\necho ä\n", "text/x-shellscript"), (CONFIG, "text/plain")),
    "From nobody Fri Jan 11 07:00:00 1980\n" + mime((CONFIG, "text/cloud-config")),
    mime(("https://example.org/a\n", "text/x-include-once-url")),
]


@pytest.mark.parametrize("text", GOOD, ids=range(len(GOOD)))
def test_what_cloud_init_takes_is_taken(text: str) -> None:
    assert refused(text) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#cloud-config\npackages: [vim\nruncmd: x\n", "line 3"),
        ("#cloud-config\nusers:\n\t- name: x\n", "line 3"),
        ("#cloud-config\na: &x [1]\nb: *y\n", "line 3"),
        ("#cloud-config\n- vim\n", "it is no table but a list"),
        ("#cloud-config\nhello\n", "it is no table but a text"),
        ("#cloud-config-archive\na: 1\n", "it is no list but a table"),
        (
            "#cloud-config-archive\n- {type: text/cloud-config, content: 'a: 1'}\n- |\n  #cloud-config\n  a: [b\n",
            "part 2: line 3",
        ),
        ("#cloud-config-archive\n- content: |\n    - 1\n", "part 1: line 2: it is no table but a list"),
        ("#cloud-config\na: \x07\n", "line 2"),
        ("#cloud-config\na: !!python/object:os.system x\n", "line 2"),
        ("#cloud-config\n" + "[" * 5000, "line"),
        (mime((CONFIG, "text/cloud-config"), ("#cloud-config\na: [\n", "text/cloud-config")), "part 2: line 2"),
        (
            mime((CONFIG, "text/cloud-config"), ("hello\n", "text/plain")),
            "part 2: cloud-init would ignore it: no known form",
        ),
        (mime((CONFIG, "text/cloudconfig")), "part 1: cloud-init would ignore it: type text/cloudconfig"),
        ("Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n\nhello\n", "without parts"),
        ("hello\n", "no known form"),
    ],
)
def test_what_it_would_skip_is_refused(text: str, reason: str) -> None:
    assert reason in refused(text)


def test_the_line_is_that_of_the_whole_file() -> None:
    text = mime(("#!/bin/sh\n", "text/x-shellscript"), ("#cloud-config\npackages: [vim\nruncmd: x\n", "text/cloud-config"))
    expected = text.splitlines().index("runcmd: x") + 1
    assert f"part 2: line {expected}" in refused(text)


def test_packed_user_data_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "good.gz").write_bytes(gzip.compress(CONFIG.encode()))
    done = call("plan", "--user-data", str(tmp_path / "good.gz"), "--json", "tiny")
    assert "reads no first-boot configuration" in done.stderr  # it was read: tiny has no use for it
    (tmp_path / "bad.gz").write_bytes(gzip.compress(b"#cloud-config\na: [\n"))
    done = call("plan", "--user-data", str(tmp_path / "bad.gz"), "tiny")
    assert (done.returncode, "line 3" in done.stderr) == (110, True)
    for name, data, reason in (
        ("cut.gz", gzip.compress(os.urandom(5000))[:-2000], "cannot be unpacked"),
        ("bomb.gz", gzip.compress(bytes(64 << 20)), "cannot be unpacked"),
        ("latin", b"#cloud-config\n# caf\xe9\n", "is no text"),
        ("long", b"#cloud-config\n" + b"#" * (2 << 20), "larger than 1 MiB"),
    ):
        (tmp_path / name).write_bytes(data)
        done = call("plan", "--user-data", str(tmp_path / name), "tiny")
        assert (done.returncode, reason in done.stderr) == (110, True), name


def test_machine_files_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(b"# caf\xe9\n")
    done = call("plan", str(tmp_path / "m.toml"))
    assert done.returncode == 110
    assert "m.toml is not TOML" in done.stderr
    assert "Traceback" not in done.stderr


def test_yaml_is_loaded_only_where_it_is_read() -> None:
    program = (
        "import sys, tinamou.parts.seed as s; s.SeedSpec(user_data='#!/bin/sh\\n').problems(); print('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
