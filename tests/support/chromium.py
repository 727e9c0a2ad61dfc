"""Chromium, headless, with web pages that make calls: JsSIP for business, stanza (Jingle) for consumers."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Playwright, async_playwright

from tests.support.processes import wait_until
from tests.support.tones import write_tone

PAGES = Path(__file__).parents[1] / "interop" / "browser"
PROGRAM = Path("/usr/bin/chromium")
SILENT_DECIBELS = -80  # of the loudest bin; a tone of ours is at about -20, comfort noise below -90

needs_chromium = pytest.mark.skipif(
    not PROGRAM.exists() or not (PAGES / "built").is_dir() or shutil.which("node") is None,
    reason="Chromium or its pages are missing: run `npm ci && npm run build` in tests/interop/browser",
)

_FLAGS = (
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
    # Otherwise its candidates are names that only mDNS knows.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class Chromium:
    """One browser; each of its pages is a phone of its own.

    Args:
        folder: for the sound of its microphone.
        hertz: the tone that all its pages say.
    """

    def __init__(self, folder: Path, hertz: float) -> None:
        self.folder = folder
        self.hertz = hertz
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
        self._serving = threading.Thread(target=self._server.serve_forever, daemon=True)

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sound = write_tone(self.folder / f"{self.hertz:.0f}.wav", self.hertz, 10.0)
        self._serving.start()
        self._playwright = await async_playwright().start()
        self._browser = await self._playwright.chromium.launch(
            executable_path=str(PROGRAM),
            headless=True,
            args=[*_FLAGS, f"--use-file-for-fake-audio-capture={sound}"],
        )

    async def stop(self) -> None:
        if self._browser is not None:
            await self._browser.close()
        if self._playwright is not None:
            await self._playwright.stop()
        if self._serving.is_alive():
            await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()

    async def business(self) -> WebPhone:
        """A page with JsSIP; `register(url=..., address=..., password=...)` follows."""
        return await self._open("business")

    async def consumer(self) -> WebPhone:
        """A page with stanza; `register(url=..., address=..., password=..., resource=...)` follows."""
        return await self._open("consumer")

    async def _open(self, name: str) -> WebPhone:
        assert self._browser is not None, "start it first"
        page = await self._browser.new_page()
        phone = WebPhone(page)
        await page.expose_function("happened", phone.note)
        page.on("console", lambda message: phone.console.append(message.text))
        page.on("pageerror", lambda error: phone.console.append(f"! {error}"))
        await page.goto(f"http://127.0.0.1:{self._server.server_port}/{name}.html")
        return phone


class _Pages(http.server.SimpleHTTPRequestHandler):
    """Serves the pages. From loopback, because Chromium lets only a page from there connect to loopback."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(PAGES))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@dataclass
class WebPhone:
    """One page. What it can do is in business.js and consumer.js; both have the same words for the same things."""

    page: Page
    events: list[dict[str, Any]] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    _happened: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self._happened.set()

    async def stop(self) -> None:
        """Close the page, as a person closes a tab."""
        with contextlib.suppress(Exception):  # the browser may be gone already, and then so is the page
            await self.page.close()

    async def do(self, action: str, *arguments: Any) -> Any:
        """Run `phone.ACTION(ARGUMENTS)` in the page and return its result."""
        return await self.page.evaluate("([action, values]) => phone[action](...values)", [action, list(arguments)])

    async def register(self, **options: Any) -> None:
        """Connect and sign in; fails when that does."""
        await self.do("register", options)
        told = await self.expect("registered", "registration failed", "disconnected")
        assert told["event"] == "registered", f"{told} {self.console}"

    async def call(self, to: str, *, video: bool = False) -> None:
        await self.do("call", to, video)

    async def answer(self, *, video: bool = False) -> None:
        await self.do("answer", video)

    async def expect(self, *names: str, seconds: float = 15.0, **details: Any) -> dict[str, Any]:
        """Return and take the first event of one of these names with these details; earlier ones are dropped."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for position, event in enumerate(self.events):
                        if event["event"] in names and details.items() <= event.items():
                            del self.events[: position + 1]
                            return event
                    self._happened.clear()
                    await self._happened.wait()
        except TimeoutError:
            raise AssertionError(
                f"the page waited {seconds:g} s for {' or '.join(names)}; had {self.events}\n"
                + "\n".join(self.console[-20:])
            ) from None

    async def hears(self, hertz: float, seconds: float = 15.0) -> None:
        """Return when the loudest frequency is this one."""
        heard: dict[str, float] = {}

        async def does() -> bool:
            heard.update(await self.do("hear"))
            return abs(heard["hertz"] - hertz) < 15 and heard["decibels"] > SILENT_DECIBELS

        await wait_until(does, f"a tone of {hertz} Hz in the page", seconds, detail=lambda: f"{heard} {self.console}")

    async def hears_nothing(self, seconds: float = 15.0) -> None:
        """Return when nothing is loud any more."""

        async def does() -> bool:
            return bool((await self.do("hear"))["decibels"] < SILENT_DECIBELS)

        await wait_until(does, "silence in the page", seconds)

    async def sees(self, pictures: int = 5, seconds: float = 15.0) -> None:
        """Return when this many more pictures were decoded."""
        statistics: dict[str, Any] = await self.statistics()
        wanted = statistics["pictures"] + pictures

        async def does() -> bool:
            statistics.update(await self.statistics())
            return bool(statistics["pictures"] >= wanted)

        await wait_until(does, "pictures in the page", seconds, detail=lambda: f"{statistics} {self.console}")

    async def statistics(self) -> dict[str, Any]:
        """State of the connection, pictures and packets received, codecs, and the other side's candidate in use."""
        found: dict[str, Any] = await self.do("statistics")
        return found
