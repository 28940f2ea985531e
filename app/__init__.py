"""Rowcast: PostgreSQL as the backend of real-time, offline-first, collaborative applications.

The package is `app` in a checkout and `rowcast` once installed, so its modules import each other
relatively.
"""

__version__ = "0.1.0"
