"""The doors for agents: the Model Context Protocol, and what E2B's own client speaks."""
