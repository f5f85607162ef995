// stage.mjs: the world of src/web/pubsub.js, played: sockets, timers, chance, the page and its network. Knows no promise of the client.

import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach } from "node:test";
import { pathToFileURL } from "node:url";

/** All sockets of a test, all timers that have not fired, and what reached `console.error`. */
export let sockets, timers, reported;
let now, world, visible;

/** The latest socket. */
export const socket = () => sockets.at(-1);

/** Knows how many listen to it. */
class Target extends EventTarget {
  listeners = 0;
  addEventListener(...args) { this.listeners += 1; super.addEventListener(...args); }
  removeEventListener(...args) { this.listeners -= 1; super.removeEventListener(...args); }
}

/** A socket whose other end is the test. */
class FakeSocket {
  sent = [];
  closed = false;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    sockets.push(this);
  }

  // ---- what the client does

  send(frame) {
    assert.ok(!this.closed, "nothing is sent on a closed socket");
    if (typeof frame === "string") return this.sent.push(JSON.parse(frame));
    const end = frame.indexOf(10);
    return this.sent.push({ head: JSON.parse(new TextDecoder().decode(frame.subarray(0, end))), bytes: frame.slice(end + 1) });
  }

  close() { this.closed = true; }

  // ---- what the server does

  welcome(welcome = {}) {
    this.onopen({});
    this.says({ type: "welcome", session: "s", ping_ms: 25_000, limits: {}, ...welcome });
  }

  says(message) { this.onmessage({ data: JSON.stringify(message) }); }

  saysBytes(head, bytes) {
    this.onmessage({ data: Uint8Array.from([...new TextEncoder().encode(`${JSON.stringify(head)}\n`), ...bytes]).buffer });
  }

  /** Answers what was asked last. */
  answer(message) { this.says({ ref: this.sent.at(-1).ref, ...message }); }

  drop(code = 1006, reason = "") {
    this.closed = true;
    this.onclose({ code, reason });
  }
}

/** A client whose connection is open, and the states that it has told since. */
export async function connected(options, welcome) {
  const client = new PubSubClient("/ws", options);
  const log = [];
  client.on("state", (state) => log.push(state));
  await settle();
  socket().welcome(welcome);
  assert.equal(client.state, "open");
  return { client, log, states: () => log.map(({ state }) => state) };
}

/** The connection breaks; the next one is open, unless the client has another mind. */
export async function reconnect() {
  const last = socket();
  last.drop();
  for (let waited = 0; waited < 20_000 && socket() === last; waited += 100) await pass(100);
  if (socket() !== last && !socket().closed) socket().welcome();
  return socket();
}

export const event = (topic, id, data = id) => ({ type: "event", topic, event: "e", id, data });
export const rejects = (promise, wanted) => assert.rejects(promise, { name: "PubSubError", ...wanted });

/** Lets every promise that is ready go on. */
export const settle = () => new Promise((resolve) => { setImmediate(resolve); });

/** Lets time pass, timer by timer. */
export async function pass(ms) {
  const until = now + ms;
  for (;;) {
    await settle();
    const next = timers.filter(({ at }) => at <= until).sort((one, two) => one.at - two.at || one.id - two.id)[0];
    if (!next) break;
    timers.splice(timers.indexOf(next), 1);
    now = Math.max(now, next.at);
    next.act();
  }
  now = until;
}

/** How many functions the window and the document would call. */
export const listeners = () => world.listeners + visible.listeners;

/** `online` or `offline`. */
export const network = (name) => world.dispatchEvent(new Event(name));

export const page = {
  /** What `Math.random()` says. */
  random: 0,

  /** `visible` or `hidden`. */
  show(state) {
    visible.visibilityState = state;
    visible.dispatchEvent(new Event("visibilitychange"));
  },
};

const consoleError = console.error;
beforeEach(() => {
  [sockets, timers, reported, now, world, visible, page.random] = [[], [], [], 0, new Target(), new Target(), 0.25];
  console.error = (error) => reported.push(error);
});
afterEach(() => {
  console.error = consoleError;
  assert.deepEqual(reported, [], "what a callback throws is looked at by its test, or was not meant to be");
});

let timerId = 0;
const fakes = {
  WebSocket: FakeSocket,
  location: { href: "https://page.test/app/" },
  performance: { now: () => now },
  addEventListener: (...args) => world.addEventListener(...args),
  removeEventListener: (...args) => world.removeEventListener(...args),
  setTimeout: (act, ms) => {
    assert.ok(ms >= 0 && ms < 2 ** 31, `a timer of ${ms} ms`);
    timers.push({ id: ++timerId, at: now + ms, act });
    return timerId;
  },
  clearTimeout: (id) => { timers = timers.filter((timer) => timer.id !== id); },
};
for (const [name, value] of Object.entries(fakes)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
Object.defineProperty(globalThis, "document", { get: () => visible });
Math.random = () => page.random;
globalThis.crypto ??= (await import("node:crypto")).webcrypto;

// The module is no .mjs, and has no package.json to say what it is: a browser knows by its script tag.
const folder = mkdtempSync(join(tmpdir(), "pubsub-js-"));
copyFileSync(new URL("../../src/web/pubsub.js", import.meta.url), join(folder, "pubsub.mjs"));
export const { PubSubClient } = await import(pathToFileURL(join(folder, "pubsub.mjs")));
rmSync(folder, { recursive: true });
