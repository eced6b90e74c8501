"""Snapshots of a machine's disks: taken in one moment, kept as chains of overlays, checked, merged, backed up.

How a crash is survived: every change of the history is first written down as an intent, then done, then made true by
replacing ``snapshots.json`` as a whole. What is found half done later is finished or undone by `reconcile`, which looks at
QEMU's block graph and the files' own headers, never at the intent alone.
"""
