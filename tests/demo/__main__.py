"""Real conversations, told step by step. usage: scripts/demo [messages|calls]"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.demo import calls, messages

STORIES = {"messages": messages.tell, "calls": calls.tell}


def main() -> int:
    """Tell the named story."""
    name = sys.argv[1] if len(sys.argv) > 1 else "messages"
    if name not in STORIES:
        print(f"no story is called {name}; there are: {', '.join(STORIES)}", file=sys.stderr)
        return 64
    with tempfile.TemporaryDirectory(prefix="isthmus-demo-") as folder:
        asyncio.run(STORIES[name](Path(folder)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
