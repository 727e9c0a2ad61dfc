// Microphone, camera, ears and eyes of a page: Chromium's fake devices in, Web Audio and statistics out.

const SOUND = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // they would swallow a tone

export const devices = (video) =>
  navigator.mediaDevices.getUserMedia({ audio: SOUND, video: video ? { width: 320, height: 240 } : false });

export const camera = async () => (await devices(true)).getVideoTracks()[0];

// Tells the test what happened; the test exposes it before the page is loaded.
export const tell = (event, details = {}) => window.happened({ event, ...details });

// The loudest frequency that comes in over a connection, and how loud it is in dBFS.
export class Ears {
  constructor(connection) {
    this.stream = new MediaStream();
    this.element = document.createElement("audio");
    this.element.muted = true;
    this.element.srcObject = this.stream; // without an element Chromium does not decode a remote track
    document.body.append(this.element);
    this.context = new AudioContext();
    this.analyser = this.context.createAnalyser();
    this.analyser.fftSize = 8192;
    this.analyser.smoothingTimeConstant = 0;
    this.bins = new Float32Array(this.analyser.frequencyBinCount);
    connection.addEventListener("track", ({ track }) => this.follow(track));
    for (const receiver of connection.getReceivers()) this.follow(receiver.track);
  }

  follow(track) {
    if (track.kind !== "audio" || this.source) return;
    this.stream.addTrack(track);
    this.element.play().catch(() => {});
    this.source = this.context.createMediaStreamSource(this.stream);
    this.source.connect(this.analyser);
  }

  hear() {
    this.analyser.getFloatFrequencyData(this.bins);
    let loudest = 1;
    for (let bin = 2; bin < this.bins.length; bin++) if (this.bins[bin] > this.bins[loudest]) loudest = bin;
    return { hertz: (loudest * this.context.sampleRate) / this.analyser.fftSize, decibels: this.bins[loudest] };
  }
}

// What the statistics say: pictures decoded, codecs in use, and the selected pair of candidates.
export const statistics = async (connection) => {
  const reports = [...(await connection.getStats()).values()];
  const one = (id) => reports.find((report) => report.id === id);
  const received = reports.filter((report) => report.type === "inbound-rtp");
  const transport = reports.find((report) => report.type === "transport");
  const pair = transport && one(transport.selectedCandidatePairId);
  return {
    state: connection.connectionState,
    pictures: received.reduce((sum, report) => sum + (report.framesDecoded || 0), 0),
    packets: received.reduce((sum, report) => sum + report.packetsReceived, 0),
    codecs: received.map((report) => one(report.codecId)?.mimeType ?? ""),
    transports: reports.filter((report) => report.type === "transport").length,
    remote: pair ? `${one(pair.remoteCandidateId).address}:${one(pair.remoteCandidateId).port}` : "",
    remoteType: pair ? one(pair.remoteCandidateId).candidateType : "",
  };
};
