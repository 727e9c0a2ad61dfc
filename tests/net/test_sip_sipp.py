"""SIPp, a SIP implementation that is not ours, sends MESSAGE and OPTIONS to the endpoint."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.sip_network import Recorder, running

CALLS = 200

SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="one request">
  <send retrans="500"><![CDATA[
    METHOD sip:ben@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: "Ana" <sip:ana@[local_ip]:[local_port]>;tag=[pid]t[call_number]
    To: <sip:ben@[remote_ip]:[remote_port]>
    Call-ID: [call_id]
    CSeq: 1 METHOD
    Contact: sip:ana@[local_ip]:[local_port]
    Max-Forwards: 70
    Content-Type: text/plain
    Content-Length: [len]

    hello from SIPp
  ]]></send>
  <recv response="200"/>
</scenario>
"""


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("sipp") is None, reason="SIPp is not installed")
@pytest.mark.parametrize(
    ("method", "mode"), [("MESSAGE", "u1"), ("OPTIONS", "u1"), ("MESSAGE", "t1"), ("OPTIONS", "tn")]
)
async def test_sipp_gets_an_answer_to_every_request(method: str, mode: str, tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.xml"
    scenario.write_text(SCENARIO.replace("METHOD", method))
    recorder = Recorder()
    async with running(recorder, timers=None) as endpoint:
        host, port = endpoint.bound["udp" if mode[0] == "u" else "tcp"]
        process = await asyncio.create_subprocess_exec(
            *("sipp", f"{host}:{port}", "-sf", str(scenario), "-t", mode, "-m", str(CALLS), "-r", "400", "-nostdin"),
            *(
                "-i",
                "127.0.0.1",
                "-l",
                "50",
                "-max_socket",
                "100",
                "-timeout",
                "30s",
                "-timeout_error",
                "-recv_timeout",
                "10000",
            ),
            cwd=tmp_path,
            env={"TERM": "dumb", "PATH": "/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode(errors="replace")[-2_000:]
    assert recorder.requests.qsize() == CALLS
    assert recorder.requests.get_nowait().request.method == method
