// A business user's softphone in a web page: JsSIP over WebSocket.
import JsSIP from "jssip";
import { Ears, camera, devices, statistics, tell } from "./media.js";

let agent;
let session;
let ears;
let audioCodec;

// Leaves one audio codec in a description of ours, as a softphone that knows no other.
const narrow = (event) => {
  if (event.originator !== "local" || !audioCodec) return;
  const [head, ...sections] = event.sdp.split(/^(?=m=)/m);
  const narrowed = sections.map((section) => {
    if (!section.startsWith("m=audio")) return section;
    const kept = new RegExp(`^a=rtpmap:(\\d+) ${audioCodec}/`, "m").exec(section)[1];
    return section
      .replace(/^(m=audio \d+ \S+) .*$/m, `$1 ${kept}`)
      .replace(/^a=(?:rtpmap|fmtp|rtcp-fb):(\d+) .*\r\n/gm, (line, number) => (number === kept ? line : ""));
  });
  event.sdp = head + narrowed.join("");
};

const listen = (made) => {
  session = made;
  ears = undefined;
  const hearing = (connection) => (ears ??= new Ears(connection));
  made.on("peerconnection", ({ peerconnection }) => hearing(peerconnection));
  if (made.connection) hearing(made.connection);
  made.on("progress", ({ originator, response }) => {
    if (originator === "remote") tell("ringing", { status: response.status_code });
  });
  made.on("accepted", ({ originator }) => tell("accepted", { originator }));
  made.on("confirmed", () => tell("confirmed"));
  made.on("failed", ({ originator, cause, message }) =>
    tell("failed", { originator, cause, status: message?.status_code ?? 0, reason: message?.getHeader?.("Reason") ?? "" }),
  );
  made.on("ended", ({ originator, cause }) => tell("ended", { originator, cause }));
  made.on("hold", ({ originator }) => tell("hold", { originator }));
  made.on("unhold", ({ originator }) => tell("unhold", { originator }));
  made.on("reinvite", () => tell("reinvite"));
  for (const way of ["local", "remote"]) {
    made.on(`peerconnection:set${way}descriptionfailed`, (error) => console.error(way, String(error)));
  }
  made.on("sdp", narrow);
  made.on("newDTMF", ({ originator, dtmf }) => {
    if (originator === "remote") tell("digit", { digit: dtmf.tone, milliseconds: dtmf.duration });
  });
  made.on("newInfo", ({ originator, info }) => tell("info", { originator, type: info.contentType, body: info.body }));
};

const answering = async (video) => ({
  mediaStream: await devices(video),
  pcConfig: { iceServers: [], bundlePolicy: "balanced" },
});

window.phone = {
  register: ({ url, address, password, sessionTimers = false, onlyAudioCodec = "" }) => {
    audioCodec = onlyAudioCodec;
    agent = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(url)],
      uri: `sip:${address}`,
      password,
      register_expires: 120,
      session_timers: sessionTimers,
    });
    agent.on("registered", () => tell("registered"));
    agent.on("registrationFailed", ({ cause }) => tell("registration failed", { cause }));
    agent.on("newRTCSession", ({ originator, session: made }) => {
      listen(made);
      if (originator === "remote")
        tell("incoming", { from: made.remote_identity.uri.toString(), video: /^m=video [1-9]/m.test(made._request.body) });
    });
    agent.start();
  },
  call: async (to, video) => {
    agent.call(to.startsWith("sip:") ? to : `sip:${to}`, await answering(video));
  },
  answer: async (video) => session.answer(await answering(video)),
  end: (status, reason) => session.terminate(status ? { status_code: status, reason_phrase: reason } : {}),
  hold: () => session.hold(),
  unhold: () => session.unhold(),
  mute: () => session.mute({ audio: true }),
  unmute: () => session.unmute({ audio: true }),
  press: (digits, transport) => session.sendDTMF(digits, { transportType: transport }),
  transfer: (to) => {
    const told = (name) => ({ status_line }) => tell(`transfer ${name}`, { status: status_line.status_code });
    session.refer(`sip:${to}`, { eventHandlers: { accepted: told("accepted"), failed: told("failed") } });
  },
  showVideo: async () => {
    session.connection.addTrack(await camera());
    session.renegotiate({}, () => tell("renegotiated"));
  },
  hideVideo: () => {
    for (const sender of session.connection.getSenders()) {
      if (sender.track?.kind === "video") session.connection.removeTrack(sender);
    }
    session.renegotiate({}, () => tell("renegotiated"));
  },
  restartIce: () => session.renegotiate({ rtcOfferConstraints: { iceRestart: true } }, () => tell("renegotiated")),
  hear: () => ears?.hear() ?? { hertz: 0, decibels: -999 },
  statistics: () => statistics(session.connection),
  descriptions: () => [session.connection.localDescription?.sdp, session.connection.remoteDescription?.sdp],
};
