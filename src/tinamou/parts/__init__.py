"""Vertical slices of a machine: each part holds what the user writes, what it needs, and what it becomes."""
