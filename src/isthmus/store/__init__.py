"""Durable state behind `ports.Store`."""
