"""The state directory as a documented interface: one folder a machine (docs/reference/state-directory.md)."""
