"""A real Kamailio as another company's SIP server: registrar, proxy and presence agent of one domain."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.certificates import IssuedCertificate
from tests.support.processes import Process, wait_for_port

_SCHEMAS = Path("/usr/share/kamailio/db_sqlite")
_MODULES = next(Path("/usr/lib").glob("*/kamailio/modules"), Path("/usr/lib/kamailio/modules"))

needs_kamailio = pytest.mark.skipif(
    shutil.which("kamailio") is None
    or not (_MODULES / "presence.so").exists()
    or not (_MODULES / "db_sqlite.so").exists()
    or not (_MODULES / "tls.so").exists(),
    reason="Kamailio with its presence, SQLite and TLS modules is not installed",
)

PASSWORD = "kamailio-secret"  # of all its users

# Mutual TLS: whoever connects, or is connected to, shows a certificate of the authority.
_TLS_LISTEN = "enable_tls=yes\nlisten=tls:{host}:{tls_port}\n"
_TLS_SETTINGS = """\
modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "certificate", "{certificate}")
modparam("tls", "private_key", "{private_key}")
modparam("tls", "ca_list", "{authority}")
modparam("tls", "verify_certificate", 1)
modparam("tls", "require_certificate", 1)
"""
# Registers with a digest, is the presence agent of its users, and sends what is for other domains to Isthmus.
_CONFIGURATION = """\
#!KAMAILIO
debug=2
log_stderror=yes
# One process for UDP: baresip publishes "unknown" and "open" in one breath, and two would now and then swap them.
children=1
tcp_children=2
auto_aliases=no
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
{tls_listen}alias="{domain}"
mpath="{modules}/"
{loads}
{tls_settings}modparam("ctl", "binrpc", "unix:{folder}/ctl")
modparam("usrloc", "db_mode", 0)
modparam("presence", "db_url", "sqlite:///{folder}/kamailio.db")
modparam("presence", "server_address", "sip:presence@{host}:{port}")
modparam("presence", "send_fast_notify", 1)
modparam("presence_xml", "db_url", "sqlite:///{folder}/kamailio.db")
modparam("presence_xml", "force_active", 1)
modparam("tm", "fr_timer", 5000)

request_route {{
  xlog("L_NOTICE", "$rm for $tU@$td expires $hdr(Expires) from $proto $si\n");
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  if (has_totag()) {{
    if (loose_route()) {{ t_relay(); exit; }}
    if (is_method("SUBSCRIBE") && uri == myself) {{ route(PRESENCE); exit; }}
    if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
    sl_send_reply("404", "Not here"); exit;
  }}
  if (is_method("REGISTER")) {{
    if (!pv_www_authenticate("{domain}", "{password}", "0")) {{ www_challenge("{domain}", "0"); exit; }}
    if (!save("location")) sl_reply_error();
    exit;
  }}
  # A phone's own requests come with a Route to us.
  loose_route();
  if (is_method("PUBLISH|SUBSCRIBE") && uri == myself) {{ route(PRESENCE); exit; }}
  record_route();
  if (uri == myself) {{
    if (!lookup("location")) {{ sl_send_reply("480", "Nobody here"); exit; }}
  }} else {{
    $du = "sip:{gateway};transport={transport}";
  }}
  t_relay();
  exit;
}}

route[PRESENCE] {{
  if (!t_newtran()) {{ sl_reply_error(); exit; }}
  if (is_method("PUBLISH")) handle_publish(); else handle_subscribe();
  t_release();
  exit;
}}
"""
_LOADS = (
    *(
        "kex",
        "corex",
        "tm",
        "sl",
        "rr",
        "pv",
        "xlog",
        "maxfwd",
        "textops",
        "siputils",
        "usrloc",
        "registrar",
        "auth",
        "ctl",
    ),
    *("db_sqlite", "presence", "presence_xml"),
)


@dataclass
class Kamailio:
    """One server.

    Args:
        folder: everything of it.
        domain: its users' domain; any user may register with `PASSWORD`.
        host, port: its address, UDP and TCP.
        gateway: `host:port` of Isthmus, for other domains.
        transport: how it speaks to the gateway.
        tls: its certificate, and the authority that it believes; it listens on `tls_port` then.
    """

    folder: Path
    domain: str
    host: str
    port: int
    gateway: str
    transport: str = "udp"
    tls: tuple[IssuedCertificate, Path] | None = None
    tls_port: int = 0
    process: Process = field(init=False)

    async def start(self) -> None:
        """Write its files, start it and wait until it listens."""
        self.folder.mkdir(parents=True)
        with sqlite3.connect(self.folder / "kamailio.db") as database:
            # The file remembers it: without it a process cannot read while another one writes ("database is locked").
            database.execute("PRAGMA journal_mode=WAL")
            for name in ("standard", "presence", "usrloc"):
                database.executescript((_SCHEMAS / f"{name}-create.sql").read_text())
        database.close()
        configuration = self.folder / "kamailio.cfg"
        configuration.write_text(
            _CONFIGURATION.format(
                host=self.host,
                port=self.port,
                domain=self.domain,
                modules=_MODULES,
                folder=self.folder,
                loads="\n".join(f'loadmodule "{name}.so"' for name in (*(("tls",) if self.tls else ()), *_LOADS)),
                tls_listen=_TLS_LISTEN.format(host=self.host, tls_port=self.tls_port) if self.tls else "",
                tls_settings=self._tls_settings(),
                password=PASSWORD,
                gateway=self.gateway,
                transport=self.transport,
            )
        )
        self.process = Process(
            [
                *("kamailio", "-DD", "-E", "-f", str(configuration), "-Y", str(self.folder)),
                *("-P", str(self.folder / "kamailio.pid"), "-m", "32", "-M", "8"),
            ],
            self.folder / "output.log",
            environment={"HOME": str(self.folder), "LANG": os.environ.get("LANG", "C")},
        )
        await self.process.start()
        await wait_for_port(self.port, host=self.host)

    def _tls_settings(self) -> str:
        if self.tls is None:
            return ""
        issued, authority = self.tls
        return _TLS_SETTINGS.format(certificate=issued.certificate, private_key=issued.private_key, authority=authority)

    async def stop(self) -> None:
        """End it; its main process ends its children."""
        if hasattr(self, "process"):
            await self.process.stop()
