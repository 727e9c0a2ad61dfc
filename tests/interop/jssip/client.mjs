// JsSIP in Node: commands as JSON lines on standard input, events as JSON lines on standard output.
//   node client.mjs ws://127.0.0.1:5066 ana@corp.test password
// Browsers have WebSocket; Node 20 has not, so `ws` stands in. RTCPeerConnection is not needed for messages.
import { createInterface } from "node:readline";
import JsSIP from "jssip";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket;
globalThis.window = {};

const [, , url, address, password] = process.argv;
const tell = (event, details = {}) => process.stdout.write(JSON.stringify({ event, ...details }) + "\n");

const agent = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(url)],
  uri: `sip:${address}`,
  password,
  register_expires: 120,
  session_timers: false,
});

agent.on("connected", () => tell("connected"));
agent.on("disconnected", () => tell("disconnected"));
agent.on("registered", () => tell("registered"));
agent.on("unregistered", () => tell("unregistered"));
agent.on("registrationFailed", ({ cause, response }) =>
  tell("registration failed", { cause, status: response ? response.status_code : 0 }),
);
agent.on("newMessage", ({ originator, message, request }) => {
  if (originator !== "remote") return;
  tell("message", {
    from: message.remote_identity.uri.toString(),
    type: request.getHeader("Content-Type"),
    text: request.body,
  });
});

const commands = {
  message: ({ to, text, type }) =>
    agent.sendMessage(`sip:${to}`, text, {
      ...(type ? { contentType: type } : {}),
      eventHandlers: {
        succeeded: ({ response }) => tell("sent", { status: response.status_code }),
        failed: ({ cause, response }) => tell("not sent", { cause, status: response ? response.status_code : 0 }),
      },
    }),
  drop: () => agent.transport.socket._ws.terminate(), // as when the network goes away
  stop: () => agent.stop(),
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { command, ...parameters } = JSON.parse(line);
  commands[command](parameters);
});
agent.start();
