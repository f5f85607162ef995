// client.test.mjs: the promises of src/web/pubsub.js, against a server, a network and a clock that are played. Knows no browser.
//
//     node --test tests/js/client.test.mjs

import assert from "node:assert/strict";
import { test } from "node:test";
import { PubSubClient, connected, event, listeners, network, page, pass, reconnect, rejects, reported } from "./stage.mjs";
import { settle, socket, sockets, timers } from "./stage.mjs";

// ---- connections -----------------------------------------------------------------------------------------------------

test("a path is resolved against the page, and http becomes ws", async () => {
  for (const [url, resolved] of [["/ws", "wss://page.test/ws"], ["ws", "wss://page.test/app/ws"], ["http://a.test/x#y", "ws://a.test/x"]]) {
    new PubSubClient(url);
    await settle();
    assert.equal(socket().url, resolved);
  }
  for (const url of ["ftp://a.test/", "mailto:a", "http://"]) assert.throws(() => new PubSubClient(url), TypeError);
});

test("the token is asked for before each connect and goes as a subprotocol", async () => {
  let asked = 0;
  const { states } = await connected({ token: async () => `jwt.${++asked}_-~` });
  assert.deepEqual(socket().protocols, ["actix-pubsub.v1", "bearer.jwt.1_-~"]);
  socket().drop();
  await pass(500);
  assert.deepEqual(socket().protocols, ["actix-pubsub.v1", "bearer.jwt.2_-~"]);
  assert.equal(socket().url, "wss://page.test/ws");
  assert.deepEqual(states(), ["open", "waiting", "connecting"]);
});

test("no token and an empty one are anonymous", async () => {
  for (const token of [undefined, null, () => "", async () => null]) {
    new PubSubClient("/ws", { token });
    await settle();
    assert.deepEqual(socket().protocols, ["actix-pubsub.v1"]);
  }
});

test("a token that cannot be had, or be sent, is an error and another attempt", async () => {
  const tokens = [() => { throw new Error("no session"); }, async () => { throw new Error("no session"); }, () => "a b", () => "a=b"];
  for (const token of tokens) {
    const before = sockets.length;
    let refused = true;
    const client = new PubSubClient("/ws", { token: () => (refused ? token() : "good") });
    const errors = [];
    client.on("error", ({ code, message }) => errors.push([code, message]));
    await settle();
    assert.equal(client.state, "waiting");
    assert.deepEqual(errors.map(([code]) => code), ["connect"]);
    assert.doesNotMatch(errors[0][1], /a[ =]b/, "a token is in no message");
    refused = false;
    await pass(500);
    assert.equal(sockets.length, before + 1);
    assert.equal(socket().protocols[1], "bearer.good");
    client.close();
  }
});

test("reconnects come after a random part of a time that doubles up to the cap", async () => {
  for (const part of [0, 0.5, 0.999]) {
    page.random = part;
    const { client, log } = await connected();
    for (const bound of [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]) {
      const count = sockets.length;
      socket().drop();
      const { state, retryInMs } = log.at(-1);
      assert.deepEqual([state, retryInMs], ["waiting", part * bound]);
      if (part > 0) await pass(retryInMs - 1);
      assert.equal(sockets.length, count, "not before its time");
      await pass(1);
      assert.equal(sockets.length, count + 1);
    }
    client.close();
  }
});

test("a connection of 5 s, or one answer, begins the back-off anew", async () => {
  page.random = 1;
  const { client, log } = await connected();
  const waited = async (prove) => {
    for (let attempt = 0; attempt < 3; attempt++) {
      socket().drop();
      await pass(log.at(-1).retryInMs);
    }
    socket().welcome();
    await prove();
    socket().drop();
    const { retryInMs } = log.at(-1);
    await pass(retryInMs);
    socket().welcome();
    await pass(5_000);
    return retryInMs;
  };
  assert.equal(await waited(() => pass(4_999)), 4_000);
  assert.equal(await waited(() => pass(5_000)), 500);
  assert.equal(await waited(() => { client.subscribe("t"); socket().answer({ type: "ok" }); }), 500);
});

test("a socket that never says welcome is given up", async () => {
  const { client, log } = await connected();
  socket().drop();
  await pass(log.at(-1).retryInMs);
  const silent = socket();
  silent.onopen({});
  silent.says({ type: "live", topic: "t" });
  await pass(19_999);
  assert.equal(client.state, "connecting");
  await pass(1);
  assert.deepEqual([log.at(-1).state, log.at(-1).reason, silent.closed], ["waiting", "no welcome in time", true]);
});

test("an attempt that fails in a client that is closed by then is not repeated", async () => {
  const client = new PubSubClient("/ws", { token: async () => { throw new Error("no session"); } });
  client.on("error", () => client.close());
  await settle();
  assert.deepEqual([client.state, timers.length], ["closed", 0]);
});

test("a token that never comes is given up, and is of no use when it comes after all", async () => {
  const late = [];
  const client = new PubSubClient("/ws", { token: () => new Promise((resolve) => late.push(resolve)) });
  await pass(20_000);
  assert.equal(client.state, "waiting");
  await pass(500);
  late[0]("old");
  await settle();
  assert.equal(sockets.length, 0);
  late[1]("new");
  await settle();
  assert.deepEqual(sockets.map(({ protocols }) => protocols[1]), ["bearer.new"]);
});

test("terminal close codes stop for good, the others do not", async () => {
  for (const code of [1002, 1003, 1007, 1008, 1009, 4500, 4501, 4999]) {
    const { client, log } = await connected();
    const ended = [];
    client.subscribe("t", { onState: (state, error) => ended.push([state, error?.code]) });
    const waiting = client.publish("t", "e", 1, { key: "k" });
    const count = sockets.length;
    socket().drop(code, "why");
    assert.deepEqual(log.at(-1), { state: "stopped", code, reason: "why" });
    assert.deepEqual(ended, [["ended", "stopped"]]);
    await rejects(waiting, { code: "stopped" });
    await rejects(client.publish("t", "e", 1), { code: "stopped" });
    assert.throws(() => client.subscribe("u"), { code: "stopped" });
    network("online");
    await pass(1_000_000);
    assert.equal(sockets.length, count);
  }
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4003, 4499]) {
    const { client } = await connected();
    socket().drop(code);
    assert.equal(client.state, "waiting", `${code}`);
    client.close();
  }
});

test("closing is told, nothing is sent after it, and the next attempt is not before after_ms", async () => {
  page.random = 0.5;
  const { client, log } = await connected();
  const told = [];
  client.on("closing", (closing) => told.push(closing));
  socket().says({ type: "closing", code: 1001, reason: "drain", reconnect: true, after_ms: 7_000 });
  assert.deepEqual(told, [{ code: 1001, reason: "drain", reconnect: true, afterMs: 7_000 }]);
  const [first, sent] = [socket(), socket().sent.length];
  const held = client.publish("t", "e", "held");
  client.subscribe("t").unsubscribe();
  for (const name of ["online", "offline"]) network(name);
  first.drop(1001);
  assert.equal(first.sent.length, sent);
  assert.deepEqual(log.at(-1), { state: "waiting", retryInMs: 7_000, code: 1001, reason: "drain" });
  network("online");
  await pass(6_999);
  assert.equal(client.state, "waiting", "neither time nor the network make it sooner");
  await pass(1);
  socket().welcome();
  socket().answer({ type: "ok" });
  assert.deepEqual(await held, {});
});

test("a server that says closing and does not close is left", async () => {
  const { client } = await connected();
  socket().says({ type: "closing", code: 4003, reason: "expired", reconnect: true, after_ms: 100 });
  socket().says({ type: "live", topic: "t" });
  await pass(8_000);
  assert.equal(client.state, "waiting");
  assert.ok(socket().closed);
});

test("closing without reconnect, or with a terminal code, stops for good, whatever the close code", async () => {
  for (const closing of [{ code: 4003, reason: "expired", reconnect: false }, { code: 4500, reason: "revoked" }]) {
    const { log } = await connected();
    socket().says({ type: "closing", ...closing });
    socket().drop(1006);
    assert.deepEqual(log.at(-1), { state: "stopped", code: closing.code, reason: closing.reason });
  }
});

test("a server that refuses because it goes away is left", async () => {
  const { client } = await connected();
  const states = [];
  client.subscribe("t", { onState: (state, error) => states.push([state, error?.code]) });
  socket().answer({ type: "error", code: "closed", message: "going away" });
  const refused = rejects(client.publish("t", "e", 1), { code: "stopped" });
  assert.equal(socket().sent.length, 1);
  await pass(8_000);
  assert.equal(client.state, "waiting");
  await pass(500);
  socket().welcome();
  assert.deepEqual(socket().sent.map(({ type }) => type), ["subscribe", "publish"]);
  assert.deepEqual(states, [["subscribing", "closed"]]);
  socket().drop(4500);
  await refused;
});

test("silence is asked about, and no answer within 8 s is the end of the connection", async () => {
  const { client, log } = await connected({}, { ping_ms: 10_000 });
  await pass(9_999);
  assert.deepEqual(socket().sent, []);
  await pass(1);
  assert.equal(socket().sent[0].type, "ping");
  await pass(7_999);
  socket().answer({ type: "pong" });
  await pass(10_000);
  assert.equal(socket().sent.length, 2);
  const dead = socket();
  client.on("error", (error) => assert.fail(error));
  await pass(8_000);
  assert.deepEqual([log.at(-1).state, log.at(-1).code, dead.closed], ["waiting", 4000, true]);
  await pass(500);
  assert.notEqual(socket(), dead);
  socket().welcome();
  dead.onmessage?.({ data: "late" });
  dead.onclose?.({ code: 4500, reason: "late" });
  assert.equal(client.state, "open", "what the dead one says later is nobody's");
});

test("a message of any kind puts the ping off", async () => {
  await connected({}, { ping_ms: 10_000 });
  for (let i = 0; i < 5; i++) {
    await pass(9_999);
    socket().says({ type: "live", topic: "elsewhere" });
  }
  assert.deepEqual(socket().sent, []);
});

test("a network that is back, or a page that is seen again, does not wait", async () => {
  const signals = [() => network("online"), () => page.show("visible")];
  page.random = 1;
  for (const signal of signals) {
    const { client } = await connected();
    signal();
    signal();
    assert.deepEqual(socket().sent.map(({ type }) => type), ["ping"], "an open one is asked once whether it lives");
    page.show("hidden");
    socket().drop();
    const count = sockets.length;
    page.show("hidden");
    await settle();
    assert.equal(sockets.length, count);
    signal();
    await settle();
    assert.equal(sockets.length, count + 1);
    await pass(20_000);
    assert.equal(sockets.length, count + 1, "the timer of the wait is gone");
    client.close();
  }
  await connected();
  network("offline");
  assert.equal(socket().sent[0].type, "ping");
});

test("close ends everything and calls nobody", async () => {
  const { client, states } = await connected();
  const called = [];
  const sub = client.subscribe("t", { onState: (state, error) => called.push(error.code), onEvent: () => called.push("event") });
  socket().answer({ type: "error", code: "unavailable", message: "away", retry_after_ms: 60_000 });
  const refused = rejects(client.publish("t", "e", 1), { code: "closed" });
  client.close();
  client.close();
  await refused;
  await rejects(client.publish("t", "e", 1), { code: "closed" });
  assert.throws(() => client.subscribe("u"), { code: "closed" });
  assert.deepEqual([states(), called, sub.state, socket().closed], [["open", "closed"], ["unavailable"], "ended", true]);
  assert.deepEqual([timers.length, listeners()], [0, 0]);
});

// ---- subscriptions ---------------------------------------------------------------------------------------------------

test("a subscription goes on from the last id after each reconnect", async () => {
  const { client } = await connected();
  const [seen, states] = [[], []];
  const sub = client.subscribe("t", { onEvent: ({ data }) => seen.push(data), onState: (state) => states.push(state) });
  assert.deepEqual(socket().sent, [{ type: "subscribe", topic: "t", ref: socket().sent[0].ref }]);
  socket().answer({ type: "ok", topic: "t", cursor: "5-0" });
  assert.equal(sub.lastId, "5-0");
  await reconnect();
  assert.equal(socket().sent[0].last_id, "5-0", "the cursor of ok counts as an event");
  socket().answer({ type: "ok", topic: "t", cursor: "5-0" });
  socket().says(event("t", "6-0", "a"));
  socket().says(event("t", "6-1", "b"));
  assert.equal(sub.lastId, "6-1");
  await reconnect();
  assert.equal(socket().sent[0].last_id, "6-1");
  await reconnect();
  assert.equal(socket().sent[0].last_id, "6-1");
  assert.deepEqual([seen, states], [["a", "b"], ["subscribed", "subscribing", "subscribed", "subscribing"]]);
  socket().says(event("t", "8-0"));
  socket().answer({ type: "ok", topic: "t", cursor: "6-1" });
  assert.equal(sub.lastId, "8-0", "an answer that comes late turns nothing back");
});

test("a subscription made while the client opens is asked for once", async () => {
  const { client } = await connected();
  client.on("state", ({ state }) => { if (state === "open") client.subscribe("t"); });
  await reconnect();
  assert.deepEqual(socket().sent.map(({ topic }) => topic), ["t"]);
});

test("lastId and sinceMs say where to begin, sinceMs until an id is known", async () => {
  const { client } = await connected();
  client.subscribe("a", { lastId: "0-0" });
  client.subscribe("b", { sinceMs: 1_700_000_000_000 });
  client.subscribe("c", { lastId: null });
  const asked = () => socket().sent.map(({ topic, last_id, since_ms }) => [topic, last_id, since_ms]);
  assert.deepEqual(asked(), [["a", "0-0", undefined], ["b", undefined, 1_700_000_000_000], ["c", undefined, undefined]]);
  await reconnect();
  assert.deepEqual(asked()[1], ["b", undefined, 1_700_000_000_000]);
  socket().says({ type: "ok", ref: socket().sent[1].ref, topic: "b", cursor: "1700000000000-3" });
  await reconnect();
  assert.deepEqual(asked()[1], ["b", "1700000000000-3", undefined]);
  assert.throws(() => client.subscribe("d", { lastId: "yesterday" }), TypeError);
  assert.throws(() => client.subscribe("a"), { code: "subscribed" });
});

test("an event that is not after the last id is dropped", async () => {
  const { client } = await connected();
  const seen = [];
  const sub = client.subscribe("t", { lastId: "9-9", onEvent: ({ id }) => seen.push(id) });
  socket().answer({ type: "ok", topic: "t", cursor: "9-9" });
  const big = "18446744073709551615";
  const less = "18446744073709551614";
  const ids = ["9-9", "9-8", "8-10", "9-10", "9-9", "10-0", "10-0", `10-${less}`, `10-${big}`, `10-${less}`, `${big}-0`, "11-0"];
  for (const id of ids) socket().says(event("t", id));
  assert.deepEqual(seen, ["9-10", "10-0", `10-${less}`, `10-${big}`, `${big}-0`]);
  assert.equal(sub.lastId, `${big}-0`);
  socket().says(event("t", undefined));
  assert.equal(seen.length, 6, "what is only broadcast has no id and always comes");
  assert.equal(sub.lastId, `${big}-0`);
});

test("after a gap by another log, its lower ids are new", async () => {
  for (const gapFirst of [false, true]) {
    const { client } = await connected();
    const [seen, gaps] = [[], []];
    const sub = client.subscribe("t", { lastId: "900-0", onEvent: ({ id }) => seen.push(id), onGap: (gap) => gaps.push(gap) });
    const ok = { type: "ok", ref: socket().sent[0].ref, topic: "t", cursor: "900-0" };
    const gap = { type: "gap", topic: "t", after: "900-0", first: "7-0", cause: "ahead" };
    for (const message of gapFirst ? [gap, ok] : [ok, gap]) socket().says(message);
    assert.deepEqual(gaps, [{ after: "900-0", first: "7-0", cause: "ahead" }]);
    await reconnect();
    assert.equal(socket().sent[0].last_id, "0-0", "all of the other log is still to come");
    for (const id of ["7-0", "7-0", "8-0"]) socket().says(event("t", id));
    assert.deepEqual(seen, ["7-0", "8-0"]);
    assert.equal(sub.lastId, "8-0");
    client.close();
  }
});

test("after any other gap the last id still counts", async () => {
  const { client } = await connected();
  const seen = [];
  client.subscribe("t", { lastId: "5-0", onEvent: ({ id }) => seen.push(id) });
  socket().says({ type: "gap", topic: "t", after: "5-0", first: "9-0", cause: "trimmed" });
  for (const id of ["4-0", "9-0"]) socket().says(event("t", id));
  assert.deepEqual(seen, ["9-0"]);
});

test("missed and live are told", async () => {
  const { client } = await connected();
  const told = [];
  client.subscribe("t", { onMissed: (events) => told.push(events), onLive: () => told.push("live") });
  socket().says({ type: "missed", topic: "t", events: 12 });
  socket().says({ type: "live", topic: "t" });
  assert.deepEqual(told, [12, "live"]);
});

test("a subscription that the server refuses or ends is not asked for again", async () => {
  const { client } = await connected();
  const ends = [(ref) => ({ type: "error", ref, code: "denied" }), () => ({ type: "unsubscribed", topic: "t", code: "denied" })];
  for (const end of ends) {
    const states = [];
    const sub = client.subscribe("t", { onState: (state, error) => states.push([state, error.code]) });
    socket().says(end(socket().sent.at(-1).ref));
    assert.deepEqual([states, sub.state], [[["ended", "denied"]], "ended"]);
    await reconnect();
    assert.deepEqual(socket().sent, []);
  }
});

test("a subscription for which there is no log now is asked for again", async () => {
  page.random = 1;
  const { client } = await connected();
  const states = [];
  client.subscribe("t", { onState: (state, error) => states.push([state, error?.code]) });
  socket().answer({ type: "error", code: "unavailable", message: "away", retry_after_ms: 300 });
  await pass(299);
  assert.equal(socket().sent.length, 1);
  await pass(1);
  assert.equal(socket().sent.length, 2);
  socket().answer({ type: "error", code: "unavailable", message: "away" });
  await pass(500);
  socket().answer({ type: "ok" });
  assert.deepEqual(states, [["subscribing", "unavailable"], ["subscribing", "unavailable"], ["subscribed", undefined]]);
  const sub = client.subscribe("u");
  socket().answer({ type: "error", code: "unavailable", message: "away" });
  sub.unsubscribe();
  await pass(500);
  assert.equal(socket().sent.length, 4);
});

test("what is on its way to an ended subscription does not reach the next one on its topic", async () => {
  const { client } = await connected();
  const seen = [];
  client.subscribe("t", { onEvent: () => assert.fail("ended") }).unsubscribe();
  const sub = client.subscribe("t", { lastId: "1-0", onEvent: ({ id }) => seen.push(id) });
  const [first, leave, second] = socket().sent;
  assert.deepEqual([first.type, leave.type, second.type], ["subscribe", "unsubscribe", "subscribe"]);
  socket().says({ type: "ok", ref: first.ref, topic: "t", cursor: "50-0" });
  socket().says(event("t", "51-0"));
  assert.equal(sub.lastId, "1-0");
  socket().says({ type: "ok", ref: leave.ref, topic: "t" });
  socket().says({ type: "ok", ref: second.ref, topic: "t", cursor: "1-0" });
  socket().says(event("t", "2-0"));
  assert.deepEqual(seen, ["2-0"]);

  sub.unsubscribe();
  const third = client.subscribe("t", { onState: () => assert.fail("ended"), onEvent: () => assert.fail("ended") });
  sub.unsubscribe();
  assert.deepEqual([third.state, socket().sent.length], ["subscribing", 5]);
  const [, , , leaveSecond, third_] = socket().sent;
  third.unsubscribe();
  const fourth = client.subscribe("t", { onEvent: ({ id }) => seen.push(id) });
  socket().says({ type: "ok", ref: leaveSecond.ref, topic: "t" });
  socket().says(event("t", "3-0"));
  assert.deepEqual([seen, fourth.state], [["2-0"], "subscribing"], "of two that were ended, the later one counts");
  socket().says({ type: "error", ref: third_.ref, code: "denied", message: "no" });
  assert.equal(fourth.state, "subscribing", "a refusal of the one before is none of this one");
  fourth.unsubscribe();
  fourth.unsubscribe();
  await reconnect();
  assert.deepEqual(socket().sent, []);
});

// ---- publishes -------------------------------------------------------------------------------------------------------

test("a publish is answered by its ref", async () => {
  const { client } = await connected();
  const answers = [client.publish("t", "said", { a: 1 }), client.publish("t", "said", undefined, { key: "k", echo: false })];
  const [one, two] = socket().sent;
  assert.deepEqual(one, { type: "publish", ref: one.ref, topic: "t", event: "said", data: { a: 1 } });
  assert.deepEqual(two, { type: "publish", ref: two.ref, topic: "t", event: "said", data: null, key: "k", echo: false });
  socket().says({ type: "ok", ref: two.ref, id: "7-0" });
  socket().says({ type: "error", ref: one.ref, code: "rate", message: "too many", limit: 10, value: 11, retry_after_ms: 90 });
  assert.deepEqual(await answers[1], { id: "7-0" });
  await rejects(answers[0], { code: "rate", message: "too many", limit: 10, value: 11, retryAfterMs: 90 });
  await assert.rejects(client.publish("t", "said", 1n), TypeError);
  const mine = client.publish("t", "said", 1, { key: "mine", durable: true });
  assert.equal(socket().sent.at(-1).key, "mine");
  socket().answer({ type: "ok" });
  await mine;
});

test("an unknown outcome is told with the key under which to publish again", async () => {
  const { client } = await connected();
  const answer = client.publish("t", "e", 1, { durable: true });
  socket().answer({ type: "error", code: "unavailable", message: "away", outcome: "unknown" });
  await rejects(answer, { code: "unavailable", outcome: "unknown", key: socket().sent[0].key });
});

test("what was published while away is sent after the subscriptions, in its order", async () => {
  const client = new PubSubClient("/ws");
  const sent = ["a", "b"].map((data) => client.publish("t", "e", data));
  client.subscribe("t");
  await settle();
  assert.deepEqual(socket().sent, []);
  socket().welcome();
  assert.deepEqual(socket().sent.map(({ type, data }) => data ?? type), ["subscribe", "a", "b"]);
  for (const { ref } of socket().sent) socket().says({ type: "ok", ref });
  await Promise.all(sent);
});

test("a publish without a key that was cut off is disconnected, and not sent again", async () => {
  const { client } = await connected();
  const refused = rejects(client.publish("t", "e", 1), { code: "disconnected" });
  await reconnect();
  await refused;
  assert.deepEqual(socket().sent, []);
});

test("a durable publish is sent again under the same key until it is answered", async () => {
  const { client } = await connected({ durable: true });
  const answers = [client.publish("t", "e", 1), client.publish("t", "e", 2)];
  const refused = rejects(client.publish("t", "e", 3, { durable: false }), { code: "disconnected" });
  const [one, two, three] = socket().sent;
  assert.match(one.key, /^[0-9a-f]{32}$/);
  assert.notEqual(one.key, two.key);
  assert.equal(three.key, undefined);
  await reconnect();
  await refused;
  assert.deepEqual(socket().sent, [one, two]);
  socket().says({ type: "ok", ref: one.ref, id: "1-0" });
  await reconnect();
  assert.deepEqual(socket().sent, [two]);
  socket().says({ type: "error", ref: two.ref, code: "closed", message: "going away" });
  await pass(1);
  assert.equal(socket().sent.length, 1, "the server that goes away is not asked again");
  await reconnect();
  assert.deepEqual(socket().sent, [two]);
  socket().says({ type: "ok", ref: two.ref, id: "2-0" });
  await reconnect();
  assert.deepEqual(socket().sent, []);
  assert.deepEqual(await Promise.all(answers), [{ id: "1-0" }, { id: "2-0" }]);
});

test("the outbox is bounded", async () => {
  for (const [options, max] of [[{}, 256], [{ outboxMax: 3 }, 3]]) {
    const { client } = await connected(options);
    const answers = Array.from({ length: max }, () => client.publish("t", "e", 1));
    await rejects(client.publish("t", "e", 1), { code: "outbox_full", limit: max, value: max + 1 });
    assert.equal(socket().sent.length, max);
    socket().says({ type: "ok", ref: socket().sent[0].ref });
    await answers[0];
    client.publish("t", "e", 1).catch(() => {});
    assert.equal(socket().sent.length, max + 1);
    for (const answer of answers) answer.catch(() => {});
    client.close();
  }
});

test("publishes keep below the rate of the server", async () => {
  const { client } = await connected({}, { limits: { publish_per_second: 10, publish_burst: 20 } });
  for (let i = 0; i < 40; i++) client.publish("t", "e", i).catch(() => {});
  assert.equal(socket().sent.length, 18);
  assert.equal(timers.length, 3, "one timer each for the heartbeat, the back-off and the rate");
  await pass(1_050);
  assert.equal(socket().sent.length, 27);
  await pass(2_000);
  assert.deepEqual(socket().sent.map(({ data }) => data), Array.from({ length: 40 }, (_, i) => i));
  for (let i = 0; i < 40; i++) client.publish("t", "e", i).catch(() => {});
  client.close();
  assert.equal(timers.length, 0);
});

test("what is larger than the server takes is not sent, because it would end the connection", async () => {
  const { client } = await connected({}, { limits: { frame_bytes: 200, message_bytes: 100 } });
  const bytes = (data) => new TextEncoder().encode(JSON.stringify({ type: "publish", ref: 10, topic: "t", event: "e", data })).length;
  for (let i = 1; i < 10; i++) client.publish("t", "e", 0);
  const data = "ü".repeat((100 - bytes("")) / 2) + "x".repeat((100 - bytes("")) % 2);
  assert.equal(bytes(data), 100);
  client.publish("t", "e", data);
  assert.equal(socket().sent.at(-1).data, data);
  await rejects(client.publish("t", "e", `${data}x`), { code: "too_large", limit: 100, value: 101 });
  await rejects(client.publishBinary("t", "e", new Uint8Array(100), { key: "k" }), { code: "too_large", key: "k" });
  assert.equal(socket().sent.length, 10);
});

test("bytes come through as they are, both ways", async () => {
  const { client } = await connected();
  const bytes = Uint8Array.from({ length: 512 }, (_, i) => (i * 7) % 256);
  const events = [];
  client.subscribe("t", { onEvent: (event) => events.push(event) });
  const answer = client.publishBinary("t", "blob", bytes.subarray(0, 300), { durable: true, echo: false });
  const sent = socket().sent.at(-1);
  assert.deepEqual(sent.bytes, bytes.subarray(0, 300));
  assert.deepEqual(sent.head, { type: "publish", ref: sent.head.ref, topic: "t", event: "blob", key: sent.head.key, echo: false });
  assert.match(sent.head.key, /^[0-9a-f]{32}$/);
  socket().says({ type: "ok", ref: sent.head.ref, id: "3-0" });
  assert.deepEqual(await answer, { id: "3-0" });

  const head = { type: "event", topic: "t", event: "blob", id: "3-0" };
  socket().saysBytes(head, bytes);
  socket().saysBytes({ ...head, id: "3-1" }, new Uint8Array());
  assert.deepEqual(events, [
    { topic: "t", event: "blob", id: "3-0", data: bytes },
    { topic: "t", event: "blob", id: "3-1", data: new Uint8Array() },
  ]);
  assert.equal(socket().binaryType, "arraybuffer");
  await assert.rejects(client.publishBinary("t", "blob", "text"), TypeError);
});

// ---- chance ----------------------------------------------------------------------------------------------------------

test("whatever breaks when, each entry comes once and in order, and each durable publish is in the log once", async (context) => {
  const first = Number(process.env.SEED ?? Date.now() % 1_000_000);
  context.diagnostic(`SEED=${first}`);
  for (let seed = first; seed < first + 20; seed++) await checkRun(seed);
});

/** A client, and a server with a log that does one thing at a time, in any order, and is cut off at any time. */
async function checkRun(seed) {
  const below = chance(seed);
  const [log, keys, seen, answers] = [[], new Map(), [], []];
  const client = new PubSubClient("/ws", { durable: true });
  client.on("error", (error) => assert.fail(error));
  client.subscribe("t", { lastId: "0-0", onEvent: ({ data }) => seen.push(data) });
  const append = (data) => log.push(event("t", `${9 + (log.length >> 2)}-${8 + (log.length & 3)}`, data));
  const isOpen = () => sockets.length > 0 && !socket().closed;
  const handle = () => {
    const { type, ref, last_id, key, data } = socket().sent[socket().handled++] ?? {};
    if (type === "subscribe") {
      socket().next = log.findIndex(({ id }) => id === last_id) + 1;
      socket().says({ type: "ok", ref, topic: "t", cursor: last_id });
    } else if (type === "publish" && below(8) === 0) {
      socket().says({ type: "error", ref, code: "closed", message: "going away" });
    } else if (type === "publish") {
      if (!keys.has(key)) keys.set(key, log[append(data) - 1].id);
      if (below(4) > 0) socket().says({ type: "ok", ref, id: keys.get(key) });
      else socket().drop();
    } else if (type === "ping") {
      socket().says({ type: "pong", ref });
    }
  };
  const acts = [
    () => { if (isOpen() && socket().next === undefined) Object.assign(socket(), { next: Infinity, handled: 0 }).welcome(); },
    () => { if (isOpen() && socket().next !== undefined) handle(); },
    () => { if (isOpen() && socket().next < log.length) socket().says(log[socket().next++]); },
    () => { if (isOpen() && below(4) === 0) socket().drop(); },
    () => append(`server ${log.length}`),
    () => { if (answers.length < 100) answers.push(client.publish("t", "e", `client ${answers.length}`)); },
    () => pass(below(400)),
    () => { page.random = below(100) / 100; },
  ];
  for (let step = 0; step < 600; step++) await acts[below(acts.length)]();
  for (let step = 0; step < 3_000; step++) {
    for (const act of acts.slice(0, 3)) act();
    if (step % 10 === 0) await pass(1_000);
  }
  const ids = await Promise.all(answers);
  assert.deepEqual(seen, log.map(({ data }) => data), `SEED=${seed}`);
  assert.deepEqual(ids.map(({ id }) => log.find((entry) => entry.id === id).data), answers.map((_, i) => `client ${i}`), `SEED=${seed}`);
  assert.equal(new Set(seen).size, seen.length, `SEED=${seed}`);
  client.close();
}

/** Numbers from 0 to below the bound: mulberry32. */
function chance(seed) {
  let state = seed;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  };
}

// ---- strangers -------------------------------------------------------------------------------------------------------

test("a callback that throws or rejects breaks nothing and is reported", async () => {
  const boom = () => { throw new Error("boom"); };
  const asyncBoom = async () => boom();
  for (const callback of [boom, asyncBoom]) {
    const { client, log } = await connected();
    client.on("error", callback);
    client.on("closing", callback);
    const off = client.on("state", callback);
    const sub = client.subscribe("t", { onEvent: callback, onGap: callback, onMissed: callback, onLive: callback, onState: callback });
    socket().answer({ type: "ok", topic: "t", cursor: "1-0" });
    socket().says(event("t", "2-0"));
    for (const type of ["live", "missed", "gap"]) socket().says({ type, topic: "t" });
    socket().says({ type: "nonsense" });
    socket().says({ type: "closing", code: 1001 });
    await reconnect();
    assert.equal(sub.lastId, "2-0");
    assert.equal(socket().sent[0].last_id, "2-0");
    assert.equal(client.state, "open");
    // ok, event, live, missed, gap, error, closing; waiting, subscribing, connecting, open.
    assert.deepEqual(reported.map(({ message }) => message), Array(11).fill("boom"));
    off();
    client.close();
    assert.equal(reported.splice(0).length, 11);
    assert.equal(log.at(-1).state, "closed");
  }
});

test("a callback may close the client", async () => {
  for (const when of ["waiting", "connecting", "open"]) {
    const { client } = await connected();
    client.on("state", ({ state }) => { if (state === when) client.close(); });
    client.subscribe("t", { onState: (state) => assert.ok(["open", "waiting"].includes(client.state), `${state} in ${client.state}`) });
    socket().answer({ type: "ok" });
    client.publish("t", "e", 1, { key: "k" }).catch(() => {});
    const last = await reconnect();
    assert.equal(client.state, "closed");
    assert.deepEqual(when === "open" ? last.sent : [], []);
    assert.equal(timers.length, 0);
  }
});

test("what a callback ends is not called any more", async () => {
  const { client } = await connected();
  client.subscribe("a", { onState: (state) => { if (state === "subscribing") other.unsubscribe(); } });
  const other = client.subscribe("b", { onState: (state) => assert.equal(state, "subscribed") });
  for (const { ref } of socket().sent) socket().says({ type: "ok", ref });
  socket().drop();
  assert.equal(other.state, "ended");
});

test("a listener may end, and begin, listening", async () => {
  const { client } = await connected();
  const heard = [];
  const listen = () => {
    const off = client.on("error", ({ code }) => {
      heard.push(code);
      off();
      listen();
    });
  };
  listen();
  for (let i = 0; i < 2; i++) socket().onmessage({ data: "" });
  assert.deepEqual(heard, ["protocol", "protocol"]);
  assert.throws(() => client.on("open", () => {}), /there is no event open/);
});

test("garbage from the server is an error event and nothing else", async () => {
  const { client } = await connected();
  const [errors, seen] = [[], []];
  client.on("error", ({ code }) => errors.push(code));
  client.subscribe("t", { onEvent: ({ id }) => seen.push(id) });
  socket().answer({ type: "ok" });
  const garbage = ["", "{", "null", "7", "[]", '"text"', "{}", '{"type":"dance"}', '{"type":{"toString":1}}', '{"type":"welcome"}'];
  for (const id of ["soon", ["1-0"], "01-0"]) garbage.push(JSON.stringify(event("t", id)));
  for (const text of garbage) socket().onmessage({ data: text });
  const binary = ["", "\n", "{}\nx", "null\nx", '{"type":"pong"}\n', '{"type":"event","topic":"t"}x', '{"type":"event","topic":"\xff"}\n'];
  for (const bytes of binary) socket().onmessage({ data: Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)).buffer });
  assert.deepEqual(errors, Array(garbage.length + binary.length).fill("protocol"));
  const strays = [{ type: "ok", ref: 999 }, { type: "pong" }, event("elsewhere", "1-0"), { type: "gap", topic: "elsewhere" }];
  for (const message of strays) socket().says(message);
  assert.equal(errors.length, garbage.length + binary.length, "what is nobody's is no garbage");
  socket().says({ type: "error", code: "bad_json", message: "no" });
  assert.equal(errors.at(-1), "bad_json");
  socket().says(event("t", "1-0"));
  assert.deepEqual([client.state, seen], ["open", ["1-0"]]);
});

test("limits and waits that are none do no harm", async () => {
  for (const none of [undefined, null, 0, -1, "x", {}]) {
    const limits = { frame_bytes: none, message_bytes: none, publish_per_second: none, publish_burst: none };
    const { client } = await connected({}, { ping_ms: none, limits: none === undefined ? none : limits });
    client.publish("t", "e", 1).catch(() => {});
    assert.equal(socket().sent.length, 1, `${none}`);
    socket().says({ type: "closing", code: 1001, after_ms: none });
    socket().drop();
    await pass(500);
    assert.equal(client.state, "connecting");
    client.close();
  }
  const { log } = await connected();
  socket().says({ type: "closing", code: 1001, after_ms: 1e300 });
  socket().drop();
  assert.equal(log.at(-1).retryInMs, 86_400_000);
});
