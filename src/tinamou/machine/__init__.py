"""Machines from request to answer and to their end: starting, attending, reconciling."""
