"""Leases on whole nodes of one site, and when each runs: docs/leasing.md.

Moments are whole seconds from an origin that the caller chooses, and every decision is made at
the `now_s` that it is handed.
"""
