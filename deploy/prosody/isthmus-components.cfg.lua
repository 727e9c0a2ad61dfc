-- Isthmus: one XEP-0114 component per business domain. Append this to prosody.cfg.lua (or include it from
-- conf.d) after the VirtualHosts, keep the file readable by Prosody alone, and restart Prosody.
-- Isthmus connects from this machine; for another one set component_interfaces and use a private network,
-- because the component protocol is not encrypted.

Component "corp.test"
  component_secret = "change-me"
