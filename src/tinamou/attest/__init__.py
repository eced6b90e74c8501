"""Reports by which a processor proves what it started: judged offline, on any machine, with reasons."""

from __future__ import annotations

from tinamou.attest.answers import QUESTIONS, Answer, Verdict
from tinamou.attest.binary import MalformedError
from tinamou.attest.expected import Launch, events_of, measured_by, snp_measurement
from tinamou.attest.folder import bounded, certificates_in
from tinamou.attest.policy import Policy, read_policy
from tinamou.attest.session import Session, make_session
from tinamou.attest.verify import Known, told_events, told_measured, verify

__all__ = [
    "QUESTIONS",
    "Answer",
    "Known",
    "Launch",
    "MalformedError",
    "Policy",
    "Session",
    "Verdict",
    "bounded",
    "certificates_in",
    "events_of",
    "make_session",
    "measured_by",
    "read_policy",
    "snp_measurement",
    "told_events",
    "told_measured",
    "verify",
]
