"""Agents: clips as tools of the Model Context Protocol, over the API of a server."""
