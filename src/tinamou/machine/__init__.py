"""Machines from wish to answer and to their end: starting, attending, reconciling."""
