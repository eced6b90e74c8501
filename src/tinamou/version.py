"""The version of this tinamou, for who must not import what the package's own front leads to."""

__version__ = "0.1.0"
