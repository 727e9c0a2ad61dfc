// A consumer's app in a web page: stanza over an XMPP WebSocket (RFC 7395), calls by Jingle.
import { createClient } from "stanza";
import { Ears, devices, statistics, tell } from "./media.js";

let client;
let session;
let ears;

const listen = (made) => {
  session = made;
  ears = new Ears(made.pc);
  made.pc.addEventListener("connectionstatechange", () => {
    if (made.pc.connectionState === "connected") tell("connected");
  });
};

window.phone = {
  // `ice` is given to RTCPeerConnection; without servers nothing is asked of the network.
  register: ({ url, address, password, resource, trickle = true, bundlePolicy = "balanced" }) => {
    client = createClient({
      jid: address,
      password,
      resource,
      transports: { websocket: url, bosh: false },
      autoReconnect: false,
      jingle: { iceServers: [], trickleIce: trickle, bundlePolicy },
    });
    client.jingle.config.peerConnectionConfig = { bundlePolicy, rtcpMuxPolicy: "require" };
    client.on("session:started", () => {
      client.sendPresence({ legacyCapabilities: client.disco.getCaps() });
      tell("registered", { jid: client.jid });
    });
    client.on("auth:failed", () => tell("registration failed", { cause: "authentication" }));
    client.on("disconnected", () => tell("disconnected"));
    client.on("subscribe", ({ from }) => tell("subscribe", { from }));
    client.on("jingle:incoming", (made) => {
      listen(made);
      tell("incoming", { from: made.peerID, video: made.includesVideo });
    });
    client.on("jingle:ringing", () => tell("ringing"));
    client.on("jingle:accepted", () => tell("accepted"));
    client.on("jingle:terminated", (made, reason) => tell("ended", { cause: reason?.condition ?? "" }));
    for (const event of ["hold", "resumed", "mute", "unmute"]) client.on(`jingle:${event}`, () => tell(event));
    client.connect();
  },
  // stanza offers to one device; who wants all of them to ring must propose (XEP-0353), which stanza does not.
  call: async (to, video) => {
    const stream = await devices(video);
    listen(client.jingle.createMediaSession(to, undefined, stream));
    await session.start();
  },
  ring: () => session.ring(),
  answer: async (video) => {
    const stream = await devices(video);
    for (const track of stream.getTracks()) session.addTrack(track, stream);
    await session.accept();
  },
  end: (reason) => session.end(reason),
  hold: () => session.hold(),
  unhold: () => session.resume(),
  mute: () => {
    for (const sender of session.pc.getSenders()) if (sender.track) sender.track.enabled = false;
    session.mute("both", "audio");
  },
  unmute: () => {
    for (const sender of session.pc.getSenders()) if (sender.track) sender.track.enabled = true;
    session.unmute("both", "audio");
  },
  press: (digits) => session.pc.getSenders().find((sender) => sender.track?.kind === "audio").dtmf.insertDTMF(digits, 120),
  restartIce: () => session.restartIce(),
  add: (address) => client.subscribe(address),
  agree: (address) => client.acceptSubscription(address),
  hear: () => ears?.hear() ?? { hertz: 0, decibels: -999 },
  statistics: () => statistics(session.pc),
  descriptions: () => [session.pc.localDescription?.sdp, session.pc.remoteDescription?.sdp],
  stop: () => client.disconnect(),
};
