"""Dino, a desktop XMPP app, without a desktop: a display of its own, a sound server of its own, steered over D-Bus.

It must run on a `private_host`: it finds its server by the domain alone, on port 5222, with a certificate that it
trusts.
Placing and ending a call has no action on D-Bus, so those buttons are clicked; without a window manager the window
lies at 0,0 and they are always at the same places.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.processes import Process, wait_until
from tests.support.tones import NOTHING, Sound, wait_for_silence, wait_for_tone, write_tone

_PROGRAMS = ("dino-im", "Xvfb", "pulseaudio", "paplay", "parec", "xdotool", "dbus-daemon", "gdbus", "ip", "unshare")
needs_dino = pytest.mark.skipif(
    any(shutil.which(program) is None for program in _PROGRAMS),
    reason="Dino needs " + ", ".join(program for program in _PROGRAMS if shutil.which(program) is None),
)

_PHONE_BUTTON, _AUDIO_ENTRY, _VIDEO_ENTRY, _HANG_UP_BUTTON = (978, 28), (978, 82), (978, 111), (421, 475)
_RATE = 48_000

_SOUND = """\
load-module module-native-protocol-unix auth-anonymous=1 socket={socket}
load-module module-null-sink sink_name=loudspeaker
load-module module-null-sink sink_name=voice
load-module module-remap-source source_name=microphone master=voice.monitor
set-default-sink loudspeaker
set-default-source microphone
"""

# Of the table of calls in its database. A call is written as ended when it begins, in case Dino does not live to see
# its end; what shows that one stands is its sound.
_CALL_STATES = {2: "in progress", 3: "other device", 4: "ended", 5: "declined", 6: "missed", 7: "failed"}


@dataclass
class Dino:
    """One running Dino.

    Args:
        folder: empty directory for its home.
        jid: bare address of its account.
        hertz: the tone that is played into its microphone.
    """

    folder: Path
    jid: str
    password: str
    hertz: float = 700
    _running: list[Process] = field(default_factory=list)
    _environment: dict[str, str] = field(default_factory=dict)
    _known_calls: int = 0
    _heard_before: int = 0  # bytes of sound before the latest call

    @property
    def database(self) -> Path:
        return self.folder / "data" / "dino" / "dino.db"

    async def start(self) -> None:
        """Start display, sound, bus and Dino; it signs in by itself."""
        for name in ("data", "config", "cache", "run"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "run").chmod(0o700)
        self._environment = {
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.folder}/bus",
            "PULSE_SERVER": f"unix:{self.folder}/sound",
            "LANG": "C.UTF-8",
            "NO_AT_BRIDGE": "1",
            "GTK_A11Y": "none",
            "GSK_RENDERER": "cairo",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "GDK_BACKEND": "x11",
        }
        await self._start_display()
        await self._start_sound()
        bus = await self._run("bus", "dbus-daemon", "--session", f"--address=unix:path={self.folder}/bus", "--nofork")
        await bus.wait_for_file(self.folder / "bus")
        await self._make_account()
        dino = await self._run("dino", "dino-im", "--print-xmpp=all")
        await wait_until(self._is_on_the_bus, "Dino to be on the bus", detail=self._told)
        # Its first presence: before that a call would wait for it like a message, and be too old when it comes.
        await dino.wait_for_output("{jabber:client}:presence")

    async def stop(self) -> None:
        """End everything of it."""
        for process in reversed(self._running):
            await process.stop()
        self._running.clear()

    # --- what a person does ---

    async def open_chat(self, address: str) -> None:
        """Open the conversation with somebody; it becomes a conversation by that."""
        await self._gdbus("org.gtk.Application.Open", f"['xmpp:{address}?message']", "", "{}")
        await wait_until(lambda: self.conversation(address), f"Dino to open the chat with {address}")

    async def accept_subscription(self, address: str) -> None:
        """Agree to be seen by somebody who asked."""
        await self._act("accept-subscription", f"<{self.conversation(address)}>")

    async def call(self, address: str, *, video: bool = False) -> None:
        """Call somebody whose capabilities Dino knows; without them it shows no button."""
        await self.open_chat(address)

        async def has_begun() -> bool:
            await self._click(_PHONE_BUTTON)
            await asyncio.sleep(0.3)  # the menu slides open; nothing tells when it is there
            await self._click(_VIDEO_ENTRY if video else _AUDIO_ENTRY)
            await asyncio.sleep(0.3)
            return self._new_call() is not None

        await wait_until(has_begun, f"Dino to call {address}", detail=self._told)
        self._notice(self._last_call())

    async def rings(self, seconds: float = 15.0) -> int:
        """Return the number of the call that rings."""
        self._notice(await wait_until(self._new_call, "Dino to ring", seconds, detail=self._told))
        return self._known_calls

    async def accept(self, number: int) -> None:
        """Take a call."""
        await self._act("accept-call", f"<({self._conversation_of_call(number)}, {number})>")

    async def decline(self, number: int) -> None:
        """Do not take a call."""
        await self._act("reject-call", f"<({self._conversation_of_call(number)}, {number})>")

    async def hang_up(self) -> None:
        """End the call whose window is open."""
        await self._click(_HANG_UP_BUTTON)

    # --- what a person sees and hears ---

    def heard(self) -> Sound:
        """What came out of its loudspeaker since the latest call began."""
        file = self.folder / "loudspeaker.raw"
        if not file.exists():
            return NOTHING
        content = file.read_bytes()[self._heard_before :]
        return Sound(np.frombuffer(content[: len(content) // 2 * 2], np.int16).astype(np.float64), _RATE)

    async def hears(self, hertz: float, seconds: float = 20.0) -> None:
        await wait_for_tone(self.heard, hertz, seconds)

    async def hears_nothing(self) -> None:
        await wait_for_silence(self.heard)

    def call_state(self) -> str:
        """How the last call ended, as in its history."""
        rows = self._query("SELECT state FROM call WHERE id = ?", self._last_call())
        return _CALL_STATES.get(rows[0][0], "") if rows else ""

    async def call_becomes(self, *states: str, seconds: float = 15.0) -> None:
        """Return when the last call is in one of these states."""
        await wait_until(
            lambda: self.call_state() in states,
            f"Dino's call to be {' or '.join(states)}",
            seconds,
            detail=lambda: f"it is {self.call_state()!r}\n{self._told()}",
        )

    def messages(self) -> list[str]:
        """Texts of all messages in its history."""
        return [row[0] for row in self._query("SELECT body FROM message ORDER BY id")]

    def conversation(self, address: str) -> int:
        """Number of the conversation with somebody; 0 without one."""
        query = "SELECT c.id FROM conversation c JOIN jid j ON j.id = c.jid_id WHERE j.bare_jid = ?"
        rows = self._query(query, address)
        return int(rows[0][0]) if rows else 0

    # --- how ---

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)) as database:
            return database.execute(sql, values).fetchall()

    def _last_call(self) -> int:
        return int(self._query("SELECT coalesce(max(id), 0) FROM call")[0][0])

    def _notice(self, call: int) -> None:
        """A call begins; what was heard before it does not count."""
        self._known_calls = call
        self._heard_before = (self.folder / "loudspeaker.raw").stat().st_size // 2 * 2

    def _new_call(self) -> int | None:
        last = self._last_call()
        return last if last > self._known_calls else None

    def _conversation_of_call(self, number: int) -> int:
        rows = self._query(
            "SELECT c.id FROM conversation c JOIN call k ON k.counterpart_id = c.jid_id WHERE k.id = ?", number
        )
        assert rows, f"Dino has no conversation for call {number}"
        return int(rows[0][0])

    async def _make_account(self) -> None:
        """Its first start makes the database; the account goes in by hand instead of by its wizard."""
        if not self.database.exists():
            first = await self._run("first", "dino-im")
            await wait_until(self._has_tables, "Dino to make its database", detail=self._told)
            await wait_until(self._is_on_the_bus, "Dino to be on the bus", detail=self._told)
            await first.stop()
            self._running.remove(first)
        columns = "bare_jid, resourcepart, password, alias, enabled, roster_version, mam_earliest_synced"
        with closing(sqlite3.connect(self.database)) as database:
            row = (self.jid, "dino", self.password, self.jid)
            database.execute(f"INSERT INTO account ({columns}) VALUES (?, ?, ?, ?, 1, '', 0)", row)
            database.commit()

    def _has_tables(self) -> bool:
        try:
            self._query("SELECT count(*) FROM account")
            self._query("SELECT count(*) FROM call")
        except sqlite3.Error:
            return False
        return True

    async def _start_display(self) -> None:
        display = await self._run(
            "display", "Xvfb", "-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-ac"
        )
        number = await wait_until(
            lambda: next((line for line in display.output().splitlines() if line.strip().isdigit()), None),
            "a display", detail=display.output,
        )  # fmt: skip
        self._environment["DISPLAY"] = f":{number.strip()}"

    async def _start_sound(self) -> None:
        script = self.folder / "sound.pa"
        script.write_text(_SOUND.format(socket=self.folder / "sound"))
        server = await self._run(
            "pulseaudio", "pulseaudio", "-n", "-F", str(script), "--exit-idle-time=-1", "--daemonize=no",
            "--use-pid-file=no", "--log-target=stderr",
        )  # fmt: skip
        await server.wait_for_file(self.folder / "sound")
        voice = write_tone(self.folder / "voice.wav", self.hertz, 120.0)
        await self._run("voice", "paplay", "--device=voice", str(voice))
        await self._run(
            "loudspeaker", "parec", "--device=loudspeaker.monitor", f"--rate={_RATE}", "--channels=1",
            "--format=s16le", "--raw", str(self.folder / "loudspeaker.raw"),
        )  # fmt: skip

    async def _run(self, name: str, *command: str) -> Process:
        process = Process(command, self.folder / f"{name}.log", environment=self._environment)
        await process.start()
        self._running.append(process)
        return process

    async def _is_on_the_bus(self) -> bool:
        return await self._gdbus("org.gtk.Actions.List", check=False)

    async def _act(self, action: str, parameter: str) -> None:
        await self._gdbus("org.gtk.Actions.Activate", action, f"[{parameter}]", "{}")

    async def _gdbus(self, method: str, *arguments: str, check: bool = True) -> bool:
        """Call a method of its application; whether that went well."""
        place = ("--session", "--dest", "im.dino.Dino", "--object-path", "/im/dino/Dino")
        command = ["gdbus", "call", *place, "--method", method, *arguments]
        process = Process(command, self.folder / "gdbus.log", environment=self._environment)
        return await self._finish(process, check=check)

    async def _click(self, place: tuple[int, int]) -> None:
        x, y = map(str, place)
        command = ["xdotool", "mousemove", x, y, "click", "1"]
        await self._finish(Process(command, self.folder / "xdotool.log", environment=self._environment), check=True)

    async def _finish(self, process: Process, *, check: bool) -> bool:
        await process.start()
        await wait_until(lambda: not process.is_running, f"{process.command[0]} to finish", detail=process.output)
        status = await process.stop()
        assert status == 0 or not check, f"{process.command}: {status}\n{process.output()[-1000:]}"
        return status == 0

    def _told(self) -> str:
        return (
            (self.folder / "dino.log").read_text(errors="replace")[-3000:]
            if (self.folder / "dino.log").exists()
            else ""
        )
