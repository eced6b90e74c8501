"""Looks at the host with a virtual machine's eyes: one finding per check, with evidence, severity and fix."""
