"""cachelb: a director that makes a farm of Squid caches look like one big cache."""

from cachelb import compiled as _compiled

__version__ = "0.1.0"

_compiled.activate()  # before any other module of the package is imported
