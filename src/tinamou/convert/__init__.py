"""Machines of other tools made into machine files: one module for each source format, each a pure function from text.

::

    kinds.py        which format a text is in, by its content
    result.py       what every reader returns: settings, disks, notes
    account.py      what of a source was read; whatever was not becomes a note by itself
    <format>.py     a reader: text → Draft
    assemble.py     Draft and what is known of its files → a machine `spec.load_spec` accepts
    files.py        the files a draft names, looked at on this host; and their import
    writing.py      the machine as TOML
    out/            machines written for other tools
"""
