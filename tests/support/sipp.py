"""SIPp, a SIP implementation that is not ours, as a neighbour or a stranger: scenarios on a port of its own."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from tests.support.processes import Process, free_port, wait_until

needs_sipp = pytest.mark.skipif(shutil.which("sipp") is None, reason="SIPp is not installed")

SECONDS = 10

_runs = itertools.count(1)


@dataclass(frozen=True)
class SippMessage:
    """One message of its log."""

    is_received: bool
    text: str

    def header(self, name: str) -> str:
        """The first value, "" without one."""
        found = re.search(rf"^{re.escape(name)}:[ \t]*(.*?)\r?$", self.text, re.IGNORECASE | re.MULTILINE)
        return found[1] if found else ""

    @property
    def status(self) -> int:
        """Of a response; 0 for a request."""
        found = re.match(r"SIP/2\.0 (\d{3})", self.text)
        return int(found[1]) if found else 0

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0].rstrip()

    @property
    def body(self) -> str:
        return self.text.replace("\r\n", "\n").partition("\n\n")[2]


@dataclass
class SippRun:
    """One running scenario; `await finished()` for its outcome."""

    process: Process
    message_file: Path
    seconds: float = SECONDS

    async def finished(self) -> list[SippMessage]:
        """Wait for the end of the scenario, check that it went as written, and return what was said."""
        await wait_until(lambda: not self.process.is_running, "SIPp to finish", self.seconds + 5, detail=self.told)
        status = await self.process.stop()
        assert status == 0, f"the scenario failed ({status}):\n{self.told()}"
        return self.messages()

    async def wait_for(self, text: str) -> SippMessage:
        """Return the first received message that holds `text`."""

        def look() -> SippMessage | None:
            return next((m for m in self.messages() if m.is_received and text in m.text), None)

        found: SippMessage = await wait_until(look, f"SIPp to receive {text!r}", SECONDS, detail=self.told)
        return found

    async def stop(self) -> None:
        await self.process.stop()

    def messages(self) -> list[SippMessage]:
        """What was sent and received so far, without retransmissions being told apart."""
        if not self.message_file.exists():
            return []
        log = self.message_file.read_text(errors="replace")
        parts = re.split(r"^-{10,} [^\n]*\n(?:UDP|TCP|TLS) message (sent|received)[^\n]*:\n\n", log, flags=re.MULTILINE)
        return [
            SippMessage(kind == "received", text.rstrip("\n") if text.strip() else text)
            for kind, text in zip(parts[1::2], parts[2::2], strict=True)
        ]

    def told(self) -> str:
        """For a failure's message."""
        said = "\n".join(f"{'<' if m.is_received else '>'} {m.text}" for m in self.messages())
        return f"{said}\n{self.process.output()[-1500:]}"


@dataclass
class Sipp:
    """A place from which scenarios are played, one at a time.

    Args:
        folder: its files.
        host, port: its address; TCP scenarios that only send take another port.
        target: `host:port` of Isthmus.
        transport: udp or tcp.
    """

    folder: Path
    host: str
    port: int
    target: str
    transport: str = "udp"
    runs: list[SippRun] = field(default_factory=list)

    async def play(
        self,
        scenario: str,
        *,
        is_server: bool = False,
        call_id: str = "",
        has_media: bool = False,
        echoes_media: bool = False,
        seconds: float = SECONDS,
        calls: int = 1,
    ) -> SippRun:
        """Start a scenario (the inside of `<scenario>`); a server is ready when this returns.

        Args:
            has_media: give it a port for RTP.
            echoes_media: send back what arrives at `[media_port]`.
            seconds: how long it waits for a message.
            calls: how often, one after the other.
        """
        name = f"sipp-{next(_runs)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{name}.xml"
        file.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="{name}">\n{scenario}\n</scenario>\n')
        mode = {"udp": "u1", "tcp": "t1"}[self.transport]
        process = Process(
            [
                *("sipp", self.target, "-sf", str(file), "-t", mode, "-m", str(calls), "-l", "1", "-nostdin"),
                *("-i", self.host, "-p", str(self.port), "-recv_timeout", str(int(seconds * 1000))),
                *("-timeout", f"{seconds + 2:.0f}s", "-timeout_error", "-default_behaviors", "none"),
                *("-trace_msg", "-message_file", str(self.folder / f"{name}.log"), "-message_overwrite", "true"),
                *(("-cid_str", call_id) if call_id else ()),
                *(("-mi", self.host, "-mp", str(free_port(host=self.host))) if has_media else ()),
                *(("-rtp_echo",) if echoes_media else ()),
            ],
            self.folder / f"{name}.out",
            environment={"TERM": "dumb"},
        )
        run = SippRun(process, self.folder / f"{name}.log", seconds)
        self.runs.append(run)
        await process.start()
        if is_server:
            await wait_until(self._is_bound, "SIPp to listen", detail=process.output)
        return run

    async def stop(self) -> None:
        """End whatever still plays."""
        for run in self.runs:
            await run.stop()

    async def ask(
        self,
        method: str,
        uri: str,
        *,
        sender: str,
        status: int,
        headers: tuple[str, ...] = (),
        body: str = "",
        content_type: str = "text/plain",
    ) -> SippMessage:
        """Send one request outside a dialog and return its final response, which must have this status."""
        scenario = request(method, uri, sender=sender, headers=headers, body=body, content_type=content_type)
        # An INVITE gets a 100 first; the ACK of a refusal belongs to the transaction.
        scenario += '\n<recv response="100" optional="true"/>' if method == "INVITE" else ""
        scenario += f'\n<recv response="{status}"/>'
        if method == "INVITE":
            scenario += "\n" + acknowledge(uri, sender)
        messages = await (await self.play(scenario)).finished()
        return next(m for m in messages if m.is_received and m.status == status)

    def _is_bound(self) -> bool:
        """Look at the kernel's table: connecting would be a call to SIPp."""
        octets = "".join(f"{int(octet):02X}" for octet in reversed(self.host.split(".")))
        listening = {"udp": "07", "tcp": "0A"}[self.transport]
        rows = (line.split() for line in Path(f"/proc/net/{self.transport}").read_text().splitlines()[1:])
        return any(row[1] == f"{octets}:{self.port:04X}" and row[3] == listening for row in rows)


def request(
    method: str,
    uri: str,
    *,
    sender: str,
    headers: tuple[str, ...] = (),
    body: str = "",
    content_type: str = "text/plain",
) -> str:
    """The step that sends one request."""
    lines = [
        f"{method} {uri} SIP/2.0",
        "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]",
        "Max-Forwards: 70",
        f"From: <{sender}>;tag=[pid]t[call_number]",
        f"To: <{uri}>",
        "Call-ID: [call_id]",
        f"CSeq: 1 {method}",
        "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>",
        *headers,
        *([f"Content-Type: {content_type}"] if body else []),
        "Content-Length: [len]",
    ]
    return step("send", "\n".join(lines) + f"\n\n{body}", 'retrans="500"')


def acknowledge(uri: str, sender: str) -> str:
    """The ACK of a refused INVITE (RFC 3261 section 17.1.1.3)."""
    return step(
        "send",
        f"""ACK {uri} SIP/2.0
[last_Via:]
Max-Forwards: 70
From: <{sender}>;tag=[pid]t[call_number]
[last_To:]
Call-ID: [call_id]
CSeq: 1 ACK
Content-Length: 0

""",
    )


def respond(status: int, reason: str, *headers: str) -> str:
    """The step that answers the request received last."""
    lines = [
        f"SIP/2.0 {status} {reason}",
        *("[last_Via:]", "[last_From:]", "[last_To:];tag=[pid]s[call_number]", "[last_Call-ID:]", "[last_CSeq:]"),
        "Contact: <sip:pbx@[local_ip]:[local_port];transport=[transport]>",
        *headers,
        "Content-Length: 0",
    ]
    return step("send", "\n".join(lines) + "\n\n")


def step(kind: str, text: str, attributes: str = "") -> str:
    """One step with a message as its content."""
    assert "]]>" not in text
    return f"<{kind} {attributes}><![CDATA[\n{text}]]></{kind}>"


def remember(header: str, pattern: str, *variables: int) -> str:
    """The action that keeps groups of a header of the received message as `[$n]`."""
    assigned = ",".join(map(str, variables))
    return (
        f'<ereg regexp="{escape(pattern)}" search_in="hdr" header="{header}:" check_it="true" assign_to="{assigned}"/>'
    )
