"""Carries events to the owner of an address."""
