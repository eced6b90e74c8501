"""Decisions about the whole machine, one per file, each with one owner."""
