"""Machines of tinamou written for other tools: one module for each format, each a pure function from a description.

::

    asked.py        what a machine asks for, field by field; what no writer took is told
    <format>.py     a writer: what is asked, and where the image lies → a text
    formats.py      which formats there are; the machine of a name or a file: machine/outward.py
"""
