"""Presence documents (PIDF, RPID, winfo, RLMI) and the composition of many devices into one person."""
