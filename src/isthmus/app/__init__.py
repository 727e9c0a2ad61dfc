"""The composition root: the only place that knows which implementation stands behind a port."""

from __future__ import annotations

from isthmus.app.isthmus import Isthmus
from isthmus.app.serving import serve

__all__ = ["Isthmus", "serve"]
