"""What is advised where a helper process does not start: by what it said, and by what it is confined with."""

from __future__ import annotations

from tinamou.blueprint import StartHelper, Why
from tinamou.prepare.helper_processes import _fix

DENIED = "swtpm: could not open the lock file: Permission denied"


def helper(label: str) -> StartHelper:
    return StartHelper("swtpm", ("swtpm", "socket", "a b"), "/tmp/state/one/tpm/swtpm.sock", Why("x", "y"), label=label)


def test_under_selinux_what_is_denied_is_a_matter_of_the_folder() -> None:
    said = _fix(helper("unconfined_u:unconfined_r:tinamou_swtpm_t:s0:c1,c2"), DENIED)
    assert "/tmp/state/one/tpm" in said and "TINAMOU_STATE" in said and "ausearch" in said


def test_elsewhere_it_is_to_be_run_by_hand() -> None:
    by_hand = "run it by hand: swtpm socket 'a b'"
    assert _fix(helper(""), DENIED) == by_hand
    assert _fix(helper("unconfined_u:unconfined_r:tinamou_swtpm_t:s0:c1,c2"), "no such option") == by_hand
