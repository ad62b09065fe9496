"""cachelb: a director that makes a farm of Squid caches look like one big cache."""

__version__ = "0.1.0"
