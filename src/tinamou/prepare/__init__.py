"""Making the host ready for a plan: one executor for each kind of step, everything written down before it is taken."""
