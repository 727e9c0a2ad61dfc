"""The administrator's doors: control socket, health and metrics."""
