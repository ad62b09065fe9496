"""What other protocols than HTTP say first on a connection: the PROXY protocol, TLS.  Pure."""
