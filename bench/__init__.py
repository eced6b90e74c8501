"""Measurements of the product and of what it is compared with; every figure in the documentation comes from here."""
