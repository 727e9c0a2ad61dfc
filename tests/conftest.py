"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A deadline per example is a timed test: it fails on a busy machine and says nothing about the code.
settings.register_profile("default-without-deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# A submission must not fail by the luck of the draw; the search for new examples goes on in everybody's own runs.
settings.register_profile(
    "reproducible", parent=settings.get_profile("default-without-deadline"), derandomize=True, database=None
)
settings.load_profile("reproducible" if os.environ.get("CI") else "default-without-deadline")
