"""What E2B's own client speaks (e2b on PyPI): sandboxes are machines, taken from pools and forks.

Source of the protocol: the client's own source, version 2.63; docs/guides/agents.md lists what is not served.
"""
