"""The farm as one cache: who holds what, learned from the nodes' store logs, kept over a restart."""
