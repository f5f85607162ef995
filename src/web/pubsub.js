/**
 * pubsub.js: the browser's end of the WebSocket protocol `actix-pubsub.v1`. An ES module that needs no build and no other file;
 * browsers have what it uses since March 2022.
 *
 * It keeps one connection, comes back when that breaks, and subscribes again where each subscription stood: of a durable topic
 * nothing is missed then and nothing comes twice, or `onGap` says so first. What is only broadcast while it is away is gone.
 *
 *     import { PubSubClient } from "/pubsub.js";
 *
 *     const client = new PubSubClient("/ws", { token: async () => (await fetch("/token")).text() });
 *     client.on("state", ({ state, retryInMs }) => showState(state, retryInMs));
 *     client.on("error", (error) => console.warn(error.code, error.message));
 *
 *     const orders = client.subscribe("orders", {
 *       lastId: localStorage.getItem("orders.last_id"),
 *       onEvent: ({ event, data, id }) => { draw(event, data); localStorage.setItem("orders.last_id", id); },
 *       onGap: ({ after, first, cause }) => drawGap(cause),
 *     });
 *     client.publish("orders", "order.placed", { sku: 7 }, { durable: true })
 *       .then(({ id }) => showPlaced(id), (error) => showError(error.code, error.message));
 *     orders.unsubscribe();
 *     client.close();
 *
 * `new PubSubClient(url, options)`, where `url` is ws, wss, http or https, or a path of this page's origin:
 *   token             none       `async () => string`, asked before each connect. Goes as the subprotocol `bearer.<token>`, so that
 *                                it is in no URL; with no token, or an empty one, the connection is anonymous
 *   durable           false      what `publish` takes for its own option `durable`
 *   outboxMax         256        publishes kept until they are answered; one more is refused with `outbox_full`
 *   backoffBaseMs     500 ms     attempt n comes after a random time from 0 to min(cap, base * 2^n) ...
 *   backoffCapMs      20,000 ms  ... and not before the time that the server named; an `ok`, or 5 s, begin at n = 0 again
 *   connectTimeoutMs  20,000 ms  from asking for the token to the server's `welcome`
 *   pongTimeoutMs     8,000 ms   from a ping to any message; also from `closing` to the end of the connection
 *
 * `subscribe(topic, options)`; no function is called after `unsubscribe()` or `close()`:
 *   lastId    none     go on after this entry of the log, `"0-0"` for all that is kept; without it: from now on
 *   sinceMs   none     instead of `lastId`: from this time on, ms since 1970
 *   onEvent   none     `({ topic, event, data, id })`; `data` is JSON, or a `Uint8Array`; `id` is there if it is from the log
 *   onGap     none     `({ after, first, cause })`: entries between the two are not there any more
 *   onMissed  none     `(events)`: so many broadcast events found no room while the connection was slow
 *   onLive    none     `()`: history was sent to its end; once for each connection
 *   onState   none     `(state, error)`: `subscribing`, `subscribed`, or `ended` if the server refused or ended it for good
 *
 * `publish(topic, event, data, options)` and `publishBinary(topic, event, bytes, options)`:
 *   durable   the client's  give it a key, and send it again after a reconnect until it is answered: it is in the log once
 *   key       random        an idempotency key of your own, 1 to 128 bytes; makes it durable
 *   echo      true          false: not to this connection. Messages that are broadcast only
 */

const PROTOCOL = "actix-pubsub.v1";
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;              // What a subprotocol may hold; RFC 9110, section 5.6.2.
const ENTRY_ID = /^(0|[1-9]\d*)-(0|[1-9]\d*)$/;
const TERMINAL = new Set([1002, 1003, 1007, 1008, 1009]);   // Close codes below 4500 after which it will not get better.
const PASSING = new Set(["closed", "rate", "unavailable"]); // Errors that end a subscription for a while only.
const STABLE_MS = 5_000;                                    // A connection that lasted so long starts the back-off anew.
const PING_MS = 25_000;                                     // If the server says nothing else.
const WAIT_MAX_MS = 86_400_000;                             // The server can ask for no more; past 2^31 ms a timer fires at once.

/**
 * What a publish is rejected with, and what `error` listeners and `onState` get. `code` is one of the protocol's, or of the client's own:
 * `disconnected` (the connection broke before the answer: it may have been done), `outbox_full`, `too_large`, `stopped`, `closed`,
 * `subscribed` (already), `connect` (no token, or no WebSocket) and `protocol` (what the server said is none; it was ignored).
 * `limit`, `value`, `retryAfterMs`, `outcome` and the `key` of a publish are there where they mean something.
 */
export class PubSubError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    Object.assign(this, { name: "PubSubError", code }, details);
  }
}

export class PubSubClient {
  #url; #options;
  #state = "connecting";
  #link = null;           // What belongs to one connection and ends with it; whoever holds an older one is too late.
  #limits = {};
  #pingMs = PING_MS;
  #attempts = 0;          // Reconnects since a connection was good.
  #told = false;          // The server said when to come again: nothing makes it sooner.
  #timers = { retry: 0, watch: 0, stable: 0, pace: 0 };
  #nextRef = 1;
  #outbox = new Map();    // Publishes that were not answered, by ref, in their order.
  #subs = new Map();      // By topic.
  #listeners = { state: new Set(), error: new Set(), closing: new Set() };

  /** Connects at once. Throws a `TypeError` if `url` is none that a WebSocket can have. */
  constructor(url, { token, durable = false, outboxMax = 256, backoffBaseMs = 500, backoffCapMs = 20_000, connectTimeoutMs = 20_000,
    pongTimeoutMs = 8_000 } = {}) {
    const resolved = new URL(url, globalThis.location?.href);
    resolved.protocol = resolved.protocol.replace(/^http/, "ws");
    if (!/^wss?:$/.test(resolved.protocol)) throw new TypeError(`${resolved.protocol} is no WebSocket`);
    resolved.hash = "";
    this.#url = resolved.href;
    this.#options = { token, durable, outboxMax, backoffBaseMs, backoffCapMs, connectTimeoutMs, pongTimeoutMs };
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.addEventListener?.("offline", this.#probe);
    globalThis.document?.addEventListener("visibilitychange", this.#seen);
    this.#connect();
  }

  /** `connecting`, `open`, `waiting` (for the next attempt), `stopped` (for good, by the server) or `closed` (by `close`). */
  get state() { return this.#state; }

  /**
   * Listens to `state` (`{ state, retryInMs, code, reason }`), `error` (a `PubSubError` that belongs to no publish and no subscription)
   * or `closing` (`{ code, reason, reconnect, afterMs }`, the server's notice before it closes). Returns what ends it.
   */
  on(name, listener) {
    if (!Object.hasOwn(this.#listeners, name)) throw new TypeError(`there is no event ${name}`);
    this.#listeners[name].add(listener);
    return () => this.#listeners[name].delete(listener);
  }

  /**
   * Subscribes to a topic, now and after every reconnect. One topic has one subscription; a second one throws. Its `lastId` is the last
   * that came, or where the server said that it stands: keep it to go on there after a reload.
   * @returns {{topic: string, lastId: ?string, state: "subscribing"|"subscribed"|"ended", unsubscribe: function(): void}}
   */
  subscribe(topic, { lastId = null, sinceMs, ...handlers } = {}) {
    this.#assertNotEnded();
    if (this.#subs.has(topic)) throw new PubSubError("subscribed", `there is a subscription to ${topic} already`);
    if (lastId !== null && !isId(lastId)) throw new TypeError(`${lastId} is no entry id`);
    const sub = { topic, lastId, sinceMs, handlers, state: "subscribing", link: null, rewound: false, attempts: 0, timer: 0 };
    this.#subs.set(topic, sub);
    this.#ask(sub);
    const unsubscribe = () => this.#unsubscribe(sub);
    return Object.freeze({ topic, unsubscribe, get lastId() { return sub.lastId; }, get state() { return sub.state; } });
  }

  /**
   * Publishes JSON. Waits in the outbox while there is no connection, and while the server's rate has no room.
   * @returns {Promise<{id?: string}>} `id` of a durable message. Rejects with a `PubSubError`; only those without a key are `disconnected`.
   */
  async publish(topic, event, data = null, options = {}) { return this.#publish({ topic, event, data }, null, options); }

  /** As `publish`, of the bytes of a `Uint8Array`. */
  async publishBinary(topic, event, bytes, options = {}) {
    if (!(bytes instanceof Uint8Array)) throw new TypeError("bytes are a Uint8Array");
    return this.#publish({ topic, event }, bytes, options);
  }

  /** Closes for good. What was not answered is rejected with `closed`. */
  close() { this.#end("closed", { code: 1000, reason: "" }); }

  // ---- connection ------------------------------------------------------------------------------------------------------

  async #connect() {
    clearTimeout(this.#timers.retry);
    const link = { socket: null, welcomed: false, going: null, probed: false, answers: new Map(), leaving: new Map(), tokens: 0, at: 0 };
    this.#link = link;
    this.#watch(this.#options.connectTimeoutMs, () => this.#lost(link, 1006, "no welcome in time"));
    this.#become("connecting");
    try {
      // Not before the constructor has returned, so that a listener hears of the first error.
      const token = await Promise.resolve().then(() => this.#options.token?.());
      if (this.#link !== link) return;
      if (token && !TOKEN.test(token)) throw new TypeError("the token holds what a subprotocol cannot");
      link.socket = new WebSocket(this.#url, token ? [PROTOCOL, `bearer.${token}`] : [PROTOCOL]);
    } catch (cause) {
      if (this.#link === link) this.#emit("error", new PubSubError("connect", String(cause?.message ?? cause), { cause }));
      return this.#lost(link, 1006, "no connection");
    }
    link.socket.binaryType = "arraybuffer";
    link.socket.onopen = () => { this.#timers.stable = setTimeout(() => { this.#attempts = 0; }, STABLE_MS); };
    link.socket.onmessage = ({ data }) => this.#heard(link, data);
    link.socket.onclose = ({ code, reason }) => this.#lost(link, code, reason);
  }

  /** One connection is over: by the server, the network or a timeout. */
  #lost(link, code, reason) {
    if (this.#link !== link) return;
    const { going } = link;
    const end = { code: going?.code ?? code, reason: going?.reason || reason };
    if (isTerminal(code) || isTerminal(end.code) || going?.reconnect === false) return this.#end("stopped", end);

    this.#drop();
    for (const [ref, publish] of this.#outbox) {
      if (publish.sent && publish.key === undefined) {
        this.#outbox.delete(ref);
        publish.reject(new PubSubError("disconnected", "the connection broke before the answer"));
      }
      publish.sent = false;
    }
    const retryInMs = Math.max(this.#jitter(this.#attempts++), going?.afterMs ?? 0);
    this.#told = going?.afterMs > 0;
    this.#timers.retry = setTimeout(() => this.#connect(), retryInMs);
    this.#become("waiting", { retryInMs, ...end });
    for (const sub of [...this.#subs.values()]) this.#enter(sub, "subscribing");
  }

  /** Lets go of the connection without waiting for its end, which a dead one may not reach for minutes. */
  #drop() {
    const socket = this.#link?.socket;
    this.#link = null;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    for (const sub of this.#subs.values()) clearTimeout(sub.timer);
    if (socket) Object.assign(socket, { onopen: null, onmessage: null, onclose: null }).close();
  }

  #end(state, detail) {
    if (this.#isEnded()) return;
    this.#drop();
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.removeEventListener?.("offline", this.#probe);
    globalThis.document?.removeEventListener("visibilitychange", this.#seen);
    const error = new PubSubError(state, `the client is ${state}: ${detail.code} ${detail.reason}`.trim());
    for (const publish of this.#outbox.values()) publish.reject(error);
    this.#outbox.clear();
    const subs = [...this.#subs.values()];
    this.#subs.clear();
    for (const sub of subs) sub.state = "ended";
    this.#become(state, detail);
    if (state === "stopped") for (const sub of subs) this.#call(sub.handlers.onState, "ended", error);
  }

  #isEnded() { return this.#state === "stopped" || this.#state === "closed"; }
  #assertNotEnded() { if (this.#isEnded()) throw new PubSubError(this.#state, `the client is ${this.#state}`); }

  /** Full jitter: everyone who lost the same server comes back at a time of their own. */
  #jitter(attempts) { return Math.random() * Math.min(this.#options.backoffCapMs, this.#options.backoffBaseMs * 2 ** attempts); }

  /** The one timer that looks after the connection; each use replaces the one before. */
  #watch(ms, act) {
    clearTimeout(this.#timers.watch);
    this.#timers.watch = setTimeout(act, ms);
  }

  /** Asks for a sign of life. A browser hides the pings of RFC 6455 from its pages. */
  #probe = () => {
    const link = this.#link;
    if (this.#state !== "open" || link.going || link.probed) return;
    link.probed = true;
    this.#watch(this.#options.pongTimeoutMs, () => this.#lost(link, 4000, "no pong in time"));
    link.socket.send(JSON.stringify({ type: "ping", ref: this.#nextRef++ }));
  };

  /** There is reason to believe that the network has changed. */
  #wake = () => { if (this.#state === "waiting" && !this.#told) this.#connect(); else this.#probe(); };
  #seen = () => { if (globalThis.document.visibilityState === "visible") this.#wake(); };

  // ---- what the server says --------------------------------------------------------------------------------------------

  #heard(link, data) {
    link.probed = false;
    if (link.welcomed && !link.going) this.#watch(this.#pingMs, this.#probe);
    try {
      this.#take(link, typeof data === "string" ? JSON.parse(data) : splitBinary(data));
    } catch (cause) {
      // Callbacks do not throw through `call`: this is what cannot be read.
      this.#emit("error", new PubSubError("protocol", cause.message, { cause }));
    }
  }

  #take(link, message) {
    const { type, topic } = message;
    // What is still on its way to a subscription that was ended does not belong to the next one on its topic.
    const sub = link.leaving.has(topic) ? undefined : this.#subs.get(topic);
    switch (type) {
      case "welcome": return this.#welcome(link, message);
      case "ok": case "error": return this.#answered(link, message);
      case "pong": return undefined;
      case "event": return this.#event(sub, message);
      case "live": return this.#call(sub?.handlers.onLive);
      case "missed": return this.#call(sub?.handlers.onMissed, message.events);
      case "gap": return sub && this.#gap(sub, message);
      case "unsubscribed": return sub && this.#refused(sub, message);
      case "closing": return this.#closing(link, message);
      default: throw new TypeError(`there is no message type ${type}`);
    }
  }

  #welcome(link, { ping_ms, limits }) {
    if (link.welcomed) throw new TypeError("welcome came twice");
    this.#limits = limits ?? {};
    this.#pingMs = waitOf(ping_ms) || PING_MS;
    // A tenth below what the server grants: messages that were sent at this rate arrive closer together now and then.
    const burst = Math.max(1, limitOf(this.#limits.publish_burst) * 0.9);
    Object.assign(link, { welcomed: true, burst, tokens: burst, at: performance.now() });
    this.#watch(this.#pingMs, this.#probe);
    this.#become("open");
    for (const sub of [...this.#subs.values()]) this.#ask(sub);
    this.#flush();
  }

  #answered(link, message) {
    const { type, ref, code, id } = message;
    const [publish, answer] = [this.#outbox.get(ref), link.answers.get(ref)];
    link.answers.delete(ref);
    if (type === "ok") this.#attempts = 0;
    else if (code === "closed") this.#leave(link, {});
    if (answer) answer(message);
    else if (!publish && type === "error") this.#emit("error", errorOf(message));
    // The server that goes away has not taken it; the next one will.
    if (!publish || (code === "closed" && publish.key !== undefined)) return;
    this.#outbox.delete(ref);
    if (type === "error") publish.reject(errorOf(message, publish.key));
    else publish.resolve(id === undefined ? {} : { id });
  }

  #event(sub, { topic, event, data, id }) {
    if (id !== undefined && !isId(id)) throw new TypeError("an event has an id that is none");
    if (!sub || (id !== undefined && sub.lastId !== null && !isAfter(id, sub.lastId))) return;
    sub.lastId = id ?? sub.lastId;
    this.#call(sub.handlers.onEvent, { topic, event, data, id });
  }

  #gap(sub, { after, first, cause }) {
    // The log is another one, and its ids say nothing about those of the old one: all that it keeps is new here.
    if (cause === "ahead") Object.assign(sub, { lastId: "0-0", rewound: true });
    this.#call(sub.handlers.onGap, { after, first, cause });
  }

  #closing(link, { code, reason, reconnect, after_ms }) {
    const going = { code, reason, reconnect, afterMs: waitOf(after_ms) };
    this.#leave(link, going);
    this.#emit("closing", going);
  }

  /** Nothing is asked of a server that is going away; it has a while to close. */
  #leave(link, going) {
    link.going = { ...link.going, ...going };
    this.#watch(this.#options.pongTimeoutMs, () => this.#lost(link, 1001, "the server is going away"));
  }

  // ---- subscriptions ---------------------------------------------------------------------------------------------------

  #request(link, request, answer) {
    const ref = this.#nextRef++;
    link.answers.set(ref, answer);
    link.socket.send(JSON.stringify({ ...request, ref }));
    return ref;
  }

  #ask(sub) {
    const [link, { topic, lastId, sinceMs }] = [this.#link, sub];
    if (this.#state !== "open" || link.going || sub.link === link) return;
    Object.assign(sub, { link, rewound: false });
    const from = lastId === null ? { since_ms: sinceMs } : { last_id: lastId };
    this.#request(link, { type: "subscribe", topic, ...from }, (answer) => {
      if (this.#subs.get(topic) !== sub) return;
      if (answer.type === "error") return this.#refused(sub, answer);
      const { cursor } = answer;
      sub.attempts = 0;
      if (isId(cursor) && !sub.rewound && (sub.lastId === null || isAfter(cursor, sub.lastId))) sub.lastId = cursor;
      this.#enter(sub, "subscribed");
    });
  }

  /** The server has not begun a subscription, or has ended it. */
  #refused(sub, message) {
    const error = errorOf(message);
    sub.link = null;
    if (PASSING.has(error.code)) {
      sub.timer = setTimeout(() => this.#ask(sub), error.retryAfterMs ?? this.#jitter(sub.attempts++));
      return this.#enter(sub, "subscribing", error);
    }
    this.#subs.delete(sub.topic);
    sub.state = "ended";
    this.#call(sub.handlers.onState, "ended", error);
  }

  #unsubscribe(sub) {
    const [link, { topic }] = [this.#link, sub];
    if (this.#subs.get(topic) !== sub) return;
    this.#subs.delete(topic);
    clearTimeout(sub.timer);
    sub.state = "ended";
    if (!link || sub.link !== link || link.going) return;
    const ref = this.#request(link, { type: "unsubscribe", topic }, () => {
      if (link.leaving.get(topic) === ref) link.leaving.delete(topic);
    });
    link.leaving.set(topic, ref);
  }

  #enter(sub, state, error) {
    if (this.#subs.get(sub.topic) !== sub || (sub.state === state && !error)) return;
    sub.state = state;
    this.#call(sub.handlers.onState, state, error);
  }

  // ---- publishes -------------------------------------------------------------------------------------------------------

  #publish(request, bytes, { key, echo = true, durable = this.#options.durable }) {
    this.#assertNotEnded();
    const [limit, value, ref] = [this.#options.outboxMax, this.#outbox.size + 1, this.#nextRef++];
    if (value > limit) throw new PubSubError("outbox_full", `${value} publishes wait, the limit is ${limit}`, { limit, value });
    const once = key ?? (durable ? randomKey() : undefined);
    const text = JSON.stringify({ type: "publish", ref, ...request, key: once, echo: echo ? undefined : false });
    const frame = bytes ? joinBinary(text, bytes) : text;
    return new Promise((resolve, reject) => {
      this.#outbox.set(ref, { frame, size: bytes ? frame.length : encode(text).length, key: once, sent: false, resolve, reject });
      this.#flush();
    });
  }

  #flush() {
    const link = this.#link;
    if (this.#state !== "open" || link.going) return;
    // One that is too large would end the connection, and for good.
    const limit = Math.min(limitOf(this.#limits.frame_bytes), limitOf(this.#limits.message_bytes));
    for (const [ref, publish] of this.#outbox) {
      const { sent, frame, size: value, key, reject } = publish;
      if (sent) continue;
      if (value > limit) {
        this.#outbox.delete(ref);
        reject(new PubSubError("too_large", `the message is ${value} bytes, the limit is ${limit}`, { limit, value, key }));
        continue;
      }
      if (!this.#hasRoom(link)) return;
      publish.sent = true;
      link.socket.send(frame);
    }
  }

  /** Takes from a token bucket of the server's rate, or comes back when there is something to take. */
  #hasRoom(link) {
    const [now, perMs] = [performance.now(), (limitOf(this.#limits.publish_per_second) * 0.9) / 1_000];
    if (perMs === Infinity) return true;
    link.tokens = Math.min(link.burst, link.tokens + (now - link.at) * perMs);
    link.at = now;
    if (link.tokens >= 1) return (link.tokens -= 1) >= 0;
    clearTimeout(this.#timers.pace);
    this.#timers.pace = setTimeout(() => this.#flush(), Math.ceil((1 - link.tokens) / perMs));
    return false;
  }

  // ---- callbacks -------------------------------------------------------------------------------------------------------

  #become(state, detail = {}) { this.#state = state; this.#emit("state", { state, ...detail }); }
  #emit(name, value) { for (const listener of [...this.#listeners[name]]) this.#call(listener, value); }

  /** What a callback throws, or an async one rejects with, is its own affair. */
  #call(callback, ...values) {
    try {
      callback?.(...values)?.then?.(undefined, (error) => console.error(error));
    } catch (error) {
      console.error(error);
    }
  }
}

// ---- values ------------------------------------------------------------------------------------------------------------

const isTerminal = (code) => code >= 4500 || TERMINAL.has(code);
const isId = (id) => typeof id === "string" && ENTRY_ID.test(id);
const waitOf = (ms) => (typeof ms === "number" && ms >= 0 ? Math.min(ms, WAIT_MAX_MS) : undefined);
const limitOf = (limit) => (typeof limit === "number" && limit > 0 ? limit : Infinity);
const errorOf = ({ code, message, limit, value, retry_after_ms, outcome }, key) =>
  new PubSubError(code, message, { limit, value, retryAfterMs: waitOf(retry_after_ms), outcome, key });
const encode = (text) => new TextEncoder().encode(text);
// 128 random bits. A page without TLS has no `crypto.randomUUID`.
const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Of two ids `<ms>-<seq>`, u64 both: compared as decimal numbers without leading zeros, because a number has 53 bits only. */
function isAfter(id, other) {
  const [[ms, seq], [otherMs, otherSeq]] = [id.split("-"), other.split("-")];
  const [one, two] = ms === otherMs ? [seq, otherSeq] : [ms, otherMs];
  return one.length === two.length ? one > two : one.length > two.length;
}

/** A JSON object, a line feed, bytes. */
function joinBinary(text, bytes) {
  const head = encode(`${text}\n`);
  const frame = new Uint8Array(head.length + bytes.length);
  frame.set(head);
  frame.set(bytes, head.length);
  return frame;
}

function splitBinary(buffer) {
  const bytes = new Uint8Array(buffer);
  const end = bytes.indexOf(0x0a);
  const head = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, Math.max(0, end))));
  if (head.type !== "event") throw new TypeError("a binary message is an event");
  return { ...head, data: bytes.subarray(end + 1) };
}
