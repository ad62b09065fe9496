"""Persistent client connections: who decides which node a client stays with, and remembers it (the supervisor's part)."""
