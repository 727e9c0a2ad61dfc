"""coturn for tests."""

from __future__ import annotations

import shutil

import pytest

needs_coturn = pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed")
