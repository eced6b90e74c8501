"""A running machine's network: its state on every hop, its speed, what slows it down, and its packets."""
