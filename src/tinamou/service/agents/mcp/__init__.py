"""Machines as tools of a language model, by the Model Context Protocol (modelcontextprotocol.io), on stdio or HTTP."""
