// The page of the chat example: rooms, people and lines. The connection is that of pubsub.js.
// Text reaches the page by textContent alone; the Content-Security-Policy forbids every other way.
import { PubSubClient } from "/pubsub.js";

const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const bytesOf = (text) => new TextEncoder().encode(text).length;
const stored = (store, key) => { try { return window[store].getItem(key); } catch { return null; } };
const keep = (store, key, value) => { try { window[store].setItem(key, value); } catch { /* Private mode: nothing is kept. */ } };

const LINES_MAX = 500;           // Lines shown per room; older ones leave the page, not the log.
const GROUP_MS = 5 * 60_000;     // Messages of one person this close together share one head.
const TEXT_BYTES = 2000, NAME_CHARS = 32; // The server's limits, to tell them early.

const logged = document.documentElement.dataset.log !== "none"; // Or what is said is for those who are there.
const query = new URLSearchParams(location.search);
const tab = stored("sessionStorage", "chat.tab") ?? randomId();
const prefix = `${tab}-${randomId()}-`; // Of the messages of this page, so that it knows them again; a duplicated tab has another one.
let sent = 0;
let name = query.get("name") ?? stored("sessionStorage", "chat.name") ?? stored("localStorage", "chat.name") ?? "";
let client = null;
let active = null;               // The room that is shown.
const rooms = new Map();
keep("sessionStorage", "chat.tab", tab);

function randomId() { return crypto.getRandomValues(new Uint32Array(2)).reduce((id, number) => id + number.toString(36), ""); }

// ---- connection ------------------------------------------------------------------------------------------------------

// The name comes with the connection: another name is another connection, which goes on where this one stood.
function connect() {
  client?.close();
  client = new PubSubClient(`/ws?${new URLSearchParams({ name, tab })}`, { backoffCapMs: 5_000 });
  client.on("state", ({ state, retryInMs, reason }) => status(state, retryInMs, reason));
  client.on("error", (error) => alertUser(error.message));
  // For what else is on the page.
  dispatchEvent(new CustomEvent("chat:client", { detail: client }));
  status("connecting");
  renderRooms();
  for (const room of rooms.values()) {
    follow(room);
    for (const entry of room.pending.values()) publish(room, entry);
  }
}

let lost = null;                 // Why there is no connection, and when the next attempt is; null before the first one was lost.
function status(state, retryInMs, reason) {
  if (state === "open") lost = null;
  else if (state !== "connecting") lost = { reason, stopped: state === "stopped", at: Date.now() + (retryInMs ?? 0) };
  $("status").textContent = $("status").dataset.state = { open: "online", connecting: "connecting" }[state] ?? "offline";
  if (state === "open") refreshOpen();
  tick();
}

function tick() {
  $("offline").hidden = !lost;
  if (!lost) return;
  const seconds = Math.ceil((lost.at - Date.now()) / 1000);
  const why = lost.reason ? ` (${lost.reason})` : "";
  const next = lost.stopped ? "" : seconds > 0 ? ` Trying again in ${seconds} s.` : " Trying…";
  $("offline-text").textContent = `Not connected${why}.${next}`;
}
setInterval(tick, 1000);
$("retry").onclick = connect;

function follow(room) {
  room.lastId = room.subscription?.lastId ?? room.lastId;
  room.version = null;
  room.seen = 0;
  room.subscription = client.subscribe(`room:${room.name}`, {
    lastId: logged ? room.lastId : null,
    onEvent: ({ event, data, id }) => (event === "chat.said" ? said(room, id, data) : presence(room, data)),
    onGap: ({ after, cause }) => gap(room, after, cause),
    onMissed: () => who(room),
    onLive: () => caughtUp(room),
    onState: (state, error) => {
      // The next server, or this one without us, may count from the start again.
      [room.version, room.seen] = [null, 0];
      if (state === "subscribed") who(room);
      if (state === "subscribed" && !logged) caughtUp(room);
      // Refused; a client that was stopped as a whole may be connected again.
      if (state === "ended" && error.code !== "stopped") { forget(room.name); alertUser(error.message); }
    },
  });
}

// History is drawn at once, and what came meanwhile after it.
function caughtUp(room) {
  if (room.live) return;
  for (const [id, data] of room.history.splice(0)) drawSaid(room, id, data);
  room.live = true;
  for (const draw of room.later.splice(0)) draw();
  toEnd(room);
}

function said(room, id, data) {
  if (!room.live) {
    room.history.push([id, data]);
    if (room.history.length > LINES_MAX) room.history.shift();
    return;
  }
  drawSaid(room, id, data);
  if ((room === active && !document.hidden) || data.cid?.startsWith(`${tab}-`)) return;
  room.unread += 1;
  renderRooms();
}

function gap(room, after, cause) {
  if (cause === "ahead") {
    room.history.length = 0;
    room.log.replaceChildren(...[...room.pending.values()].map((entry) => entry.node));
    line(room, ["The server keeps another log now"], "warn");
  } else if (after !== "0-0") {
    line(room, ["Some messages were not kept"], "warn");
  }
}

function presence(room, { came, session, tab: whose, user, node, version, total }) {
  room.seen = Math.max(room.seen, version);
  if (room.version !== null && version === room.version + 1) {
    if (came) room.people.set(session, { user, tab: whose, node }); else room.people.delete(session);
    [room.version, room.total] = [version, total];
    renderPeople(room);
  } else if (room.version !== null && version > room.version) {
    who(room);
  }
  if (whose !== tab) line(room, [make("bdi", "", user), came ? " joined" : " left"], came ? "joined" : "left");
  else if (came && room.joinedAs === user) line(room, ["Connected again"]);
  else if (came) line(room, ["You joined as ", make("bdi", "", (room.joinedAs = user))]);
  renderRooms();
}

// Asks for the list of who is there.
async function who(room) {
  if (room.asking) return;
  room.asking = true;
  try {
    const answer = await fetch(`/rooms/${encodeURIComponent(room.name)}`);
    if (!answer.ok) return;
    const { version, total, people } = await answer.json();
    // Made before a change that is known already: once more, in a while.
    if (version < room.seen) setTimeout(() => who(room), 500);
    [room.version, room.total, room.people] = [version, total, new Map(people.map((guest) => [guest.session, guest]))];
    renderPeople(room);
    renderRooms();
  } catch {
    // The connection tells about itself.
  } finally {
    room.asking = false;
  }
}

// From what else is on the page.
addEventListener("chat:notice", ({ detail: { room: roomName, text, kind } }) => {
  for (const room of rooms.values()) if (roomName === undefined || room.name === roomName) line(room, [text], kind);
});

let alertTimer = 0;
function alertUser(text) {
  $("alert-text").textContent = text;
  $("alert").hidden = false;
  clearTimeout(alertTimer);
  alertTimer = setTimeout(() => { $("alert").hidden = true; }, 10_000);
}
$("dismiss").onclick = () => { $("alert").hidden = true; };

// ---- rooms -----------------------------------------------------------------------------------------------------------

function enter(roomName) {
  const log = make("div", "log");
  log.setAttribute("role", "log");
  log.setAttribute("aria-label", `Messages in ${roomName}`);
  log.tabIndex = 0;
  log.hidden = true;
  log.onscroll = () => {
    room.stick = atEnd(log);
    if (room.stick) $("newer").hidden = true;
  };
  $("logs").prepend(log);
  const room = { name: roomName, log, subscription: null, lastId: "0-0", live: false, history: [], later: [], pending: new Map(),
    people: new Map(), version: null, seen: 0, total: 0, asking: false, joinedAs: null, unread: 0, draft: "", last: null, stick: true };
  rooms.set(roomName, room);
  keepRooms();
  if (client) follow(room);
  return room;
}

function keepRooms() { keep("sessionStorage", "chat.rooms", JSON.stringify([...rooms.keys()])); }

function forget(roomName) {
  const room = rooms.get(roomName);
  if (!room) return;
  room.log.remove();
  rooms.delete(roomName);
  keepRooms();
  if (active === room) {
    active = null;
    show(rooms.values().next().value ?? null);
  } else {
    renderRooms();
  }
}

function show(room) {
  if (active) { active.draft = $("text").value; active.log.hidden = true; }
  active = room;
  $("empty").hidden = $("say").hidden = $("leave").hidden = $("people").hidden = true;
  $("newer").hidden = true;
  $("title").textContent = "";
  if (room) {
    room.unread = 0;
    room.log.hidden = false;
    toEnd(room);
    $("say").hidden = $("leave").hidden = $("people").hidden = false;
    const bdi = make("bdi", "", room.name);
    $("title").append("# ", bdi);
    $("text").value = room.draft;
    grow();
    // On a touch screen the focus would open the keyboard over the room.
    if (!matchMedia("(pointer: coarse)").matches) $("text").focus();
    renderPeople(room);
  } else {
    $("empty").hidden = false;
  }
  panel("show-side", "menu", false);
  renderRooms();
}

// Brings a list up to date without replacing its nodes: the focus, and a press that is under way, stay where they are.
function sync(list, entries, press, update) {
  const wanted = new Set(entries.map((entry) => entry.name));
  for (const item of [...list.children]) if (!wanted.has(item.dataset.name)) item.remove();
  const known = new Map([...list.children].map((item) => [item.dataset.name, item]));
  let next = list.firstElementChild;
  for (const entry of entries) {
    const item = known.get(entry.name) ?? roomItem(entry.name, press);
    update(item.firstElementChild, entry);
    if (item === next) next = next.nextElementSibling; else list.insertBefore(item, next);
  }
}

function roomItem(roomName, press) {
  const item = make("li"), button = make("button", "room"), text = make("bdi", "", roomName);
  item.dataset.name = text.title = roomName;
  button.append(text, make("span", "count"), make("span", "badge"));
  button.onclick = () => press(roomName);
  item.append(button);
  return item;
}

function roomNumbers(button, total, unread) {
  const [, count, badge] = button.children;
  count.textContent = total;
  count.hidden = !total || unread > 0;
  badge.textContent = unread > 99 ? "99+" : unread;
  badge.setAttribute("aria-label", `${unread} unread`);
  badge.hidden = !unread;
  button.classList.toggle("unread", unread > 0);
}

let open = [];
function renderRooms() {
  sync($("joined"), [...rooms.values()], (roomName) => show(rooms.get(roomName)), (button, room) => {
    button.setAttribute("aria-current", String(room === active));
    roomNumbers(button, room.total, room.unread);
  });
  const others = open.filter((other) => !rooms.has(other.name)).slice(0, 50);
  $("open-title").hidden = others.length === 0;
  sync($("open"), others, join, (button, other) => roomNumbers(button, other.people, 0));
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${active ? `#${active.name} · ` : ""}chat`;
  $("menu-badge").hidden = !unread;
  $("menu-badge").textContent = unread > 99 ? "99+" : String(unread);
  $("self").hidden = !client;
  $("my-name").textContent = name;
  dress($("my-avatar"), name);
}

async function refreshOpen() {
  if (document.hidden || lost) return;
  try {
    const answer = await fetch("/rooms");
    if (answer.ok) { open = (await answer.json()).map(({ room, people }) => ({ name: room, people })); renderRooms(); }
  } catch { /* The connection tells about itself. */ }
}
setInterval(refreshOpen, 10_000);

function join(roomName) {
  if (client?.state === "stopped") return alertUser("Not connected.");
  show(rooms.get(roomName) ?? enter(roomName));
}

function renderPeople(room) {
  if (room !== active) return;
  const people = [...room.people].sort((a, b) => a[1].user.localeCompare(b[1].user) || (a[0] < b[0] ? -1 : 1));
  $("people-title").textContent = `Here · ${room.total}`;
  $("toggle").textContent = `People · ${room.total}`;
  $("people-list").replaceChildren(...people.map(([, { user, tab: whose, node }]) => {
    const li = make("li");
    const text = make("bdi", "", user);
    text.title = user;
    li.append(avatar(user, "small"), text);
    if (whose === tab) li.append(make("span", "count", "you"));
    if (node) li.append(make("span", "tag node", node));
    return li;
  }));
  $("people-more").hidden = room.total <= people.length;
  $("people-more").textContent = `and ${room.total - people.length} more`;
}

// ---- lines -----------------------------------------------------------------------------------------------------------

function dress(node, user) {
  let hue = 0;
  for (const char of user) hue = (hue * 31 + char.codePointAt(0)) % 65_521;
  node.style.setProperty("--hue", (hue * 137) % 360);
  node.textContent = [...user.trim()][0]?.toUpperCase() ?? "";
}

function avatar(user, size) {
  const node = make("span", `avatar ${size ?? ""}`);
  node.setAttribute("aria-hidden", "true");
  dress(node, user);
  return node;
}

// Whoever reads the newest line goes on doing so when a bar or the keyboard takes some of the height.
new ResizeObserver(() => {
  if (active?.stick) active.log.scrollTop = active.log.scrollHeight;
}).observe($("logs"));

const atEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 60;

function append(room, node, before = null) {
  // One that is in its place stays, so that it does not come in anew.
  if (node.parentNode !== room.log || node.nextElementSibling !== before) room.log.insertBefore(node, before);
  while (room.log.childElementCount > LINES_MAX) room.log.firstElementChild.remove();
  if (!room.live) return;
  if (room.stick) room.log.scrollTop = room.log.scrollHeight;
  else if (room === active) $("newer").hidden = false;
}

function toEnd(room) {
  room.stick = true;
  room.log.scrollTop = room.log.scrollHeight;
}
$("newer").onclick = () => { if (active) toEnd(active); };

// A line about the room. Names in it are a `bdi`, so that right-to-left ones do not turn the line around.
function line(room, parts, kind) {
  if (!room.live) return void room.later.push(() => line(room, parts, kind));
  const node = make("div", `notice ${kind ?? ""}`);
  node.append(...parts);
  room.last = null;
  append(room, node);
}

function messageNode(user, body, own) {
  const node = make("article", own ? "msg own" : "msg");
  const meta = make("div", "meta");
  meta.append(make("bdi", "", user));
  node.append(avatar(user), meta, make("div", "text", body));
  return node;
}

function stamp(node, at, http, server) {
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? "" : `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, `;
  const time = make("time", "", day + date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = date.toISOString();
  time.title = date.toLocaleString();
  node.querySelector(".meta").append(time);
  if (http) node.querySelector(".meta").append(make("span", "tag", "HTTP"));
  if (server) node.querySelector(".meta").append(make("span", "tag node", server));
}

// Joins a message with the one before it, if both are by the same sender and close in time.
function group(room, node, sender, at) {
  const together = room.last && room.last.sender === sender && at - room.last.at < GROUP_MS && room.last.node === node.previousElementSibling;
  node.classList.toggle("more", Boolean(together));
  room.last = { sender, at, node };
}

// In the order of the log: above one's own that are not known to be in it yet.
function drawSaid(room, id, { user, text, cid, node: server }) {
  const entry = room.pending.get(cid);
  const node = entry?.node ?? messageNode(user, text, cid?.startsWith(`${tab}-`));
  if (entry) {
    room.pending.delete(cid);
    acknowledged(entry);
  }
  const at = id ? Number(id.split("-")[0]) : Date.now();
  stamp(node, at, !cid, server);
  append(room, node, room.pending.values().next().value?.node);
  group(room, node, `${cid?.slice(0, cid.indexOf("-")) ?? "http"} ${user} ${server}`, at);
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && active) { active.unread = 0; renderRooms(); }
});

// ---- saying ----------------------------------------------------------------------------------------------------------

function say(room, text) {
  const entry = { cid: prefix + sent++, user: name, text, node: messageNode(name, text, true) };
  entry.node.classList.add("sending");
  entry.node.append(make("div", "state", "sending…"));
  room.pending.set(entry.cid, entry);
  append(room, entry.node);
  toEnd(room);
  publish(room, entry);
}

// Under its cid as the key: however often it is sent, by however many connections, it is in the log once.
function publish(room, entry) {
  const [by, { cid, user, text }] = [client, entry];
  by.publish(`room:${room.name}`, "chat.said", { user, text, cid }, logged ? { key: cid } : {}).then(
    () => acknowledged(entry),
    (error) => { if (by === client) fail(room, entry, error); },
  );
}

// It is in the log. Its place there is known when it comes from there.
function acknowledged({ node }) {
  node.classList.remove("sending");
  node.querySelector(".state")?.remove();
}

function fail(room, entry, { code, message }) {
  room.pending.delete(entry.cid);
  entry.node.classList.replace("sending", "failed");
  const why = message.replace(/^data is no [^:]*: /, ""), edit = code === "data" || code === "too_large";
  const state = entry.node.querySelector(".state");
  state.textContent = `Not sent: ${why} `;
  const again = make("button", "", edit ? "Edit" : "Send again");
  again.onclick = () => {
    if (edit) {
      if (active !== room) show(room);
      $("text").value = entry.text;
      grow();
      $("text").focus();
      return entry.node.remove();
    }
    entry.node.classList.replace("failed", "sending");
    state.textContent = "sending…";
    room.pending.set(entry.cid, entry);
    append(room, entry.node);
    publish(room, entry);
  };
  state.append(again);
  if (room.stick) toEnd(room);
  alertUser(why);
}

function grow() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight + 2, innerHeight * 0.4)}px`;
  const bytes = bytesOf(text.value);
  $("bytes").hidden = bytes < TEXT_BYTES * 0.75;
  $("bytes").textContent = `${bytes.toLocaleString("en")} / ${TEXT_BYTES.toLocaleString("en")} bytes`;
  $("bytes").classList.toggle("over", bytes > TEXT_BYTES);
}
$("text").oninput = grow;
addEventListener("resize", grow);
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("say").requestSubmit();
  }
};
$("say").onsubmit = (event) => {
  event.preventDefault();
  const body = $("text").value;
  if (!active || !body.trim()) return;
  say(active, body);
  $("text").value = "";
  grow();
};

// ---- the rest of the page --------------------------------------------------------------------------------------------

$("join").onsubmit = (event) => {
  event.preventDefault();
  const room = $("join-room").value.trim();
  if (!room) return;
  $("join-room").value = "";
  join(room);
};
$("leave").onclick = () => {
  active?.subscription?.unsubscribe();
  if (active) forget(active.name);
};

function panel(className, button, on) {
  $("app").classList.toggle(className, on);
  $(button).setAttribute("aria-expanded", String(on));
}
$("menu").onclick = () => panel("show-side", "menu", !$("app").classList.contains("show-side"));
$("toggle").onclick = () => panel("show-people", "toggle", !$("app").classList.contains("show-people"));
$("logs").addEventListener("pointerdown", () => { panel("show-side", "menu", false); panel("show-people", "toggle", false); });
addEventListener("keydown", (event) => {
  if (event.key === "Escape") { panel("show-side", "menu", false); panel("show-people", "toggle", false); $("alert").hidden = true; }
  if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown") && rooms.size) {
    event.preventDefault();
    const list = [...rooms.values()];
    const step = event.key === "ArrowDown" ? 1 : list.length - 1;
    show(list[(Math.max(0, list.indexOf(active)) + step) % list.length]);
  }
});

// Empty: it is a name.
function problemOf(text) {
  const chars = [...text].length;
  if (chars > NAME_CHARS) return `A name has at most ${NAME_CHARS} characters, this one has ${chars}.`;
  return /[\p{Cc}*]/u.test(text) ? "A name has no control characters and no asterisk." : "";
}

function setName(next) {
  name = next;
  keep("sessionStorage", "chat.name", name);
  keep("localStorage", "chat.name", name);
  renderRooms();
}

function hello(renaming) {
  $("hello-title").textContent = renaming ? "Your name" : "Welcome";
  $("hello-room-label").hidden = $("hello-room").disabled = renaming;
  $("hello").querySelector("p").hidden = renaming;
  $("hello").querySelector("button").textContent = renaming ? "Take this name" : "Enter";
  $("hello-name").value = name;
  $("hello-room").value = query.get("room") ?? "lobby";
  if (!$("hello").open) $("hello").showModal();
  (name && !renaming ? $("hello-room") : $("hello-name")).focus();
}
$("rename").onclick = () => hello(true);
$("hello").oncancel = (event) => { if (!client) event.preventDefault(); };
$("hello-name").oninput = () => $("hello-name").setCustomValidity(problemOf($("hello-name").value.trim()));
$("hello").querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  const next = $("hello-name").value.trim();
  if (!next) return;
  $("hello").close();
  const changed = next !== name || !client;
  setName(next);
  if (changed) connect();
  if (!$("hello-room").disabled) join($("hello-room").value.trim() || "lobby");
};

const wanted = query.getAll("room").filter(Boolean);
try { wanted.push(...JSON.parse(stored("sessionStorage", "chat.rooms") ?? "[]")); } catch { /* Not ours: nothing to join again. */ }
renderRooms();
if (name && !problemOf(name) && wanted.length) {
  setName(name);
  connect();
  for (const room of new Set(wanted)) enter(room);
  show(rooms.get(wanted[0]));
} else {
  hello(false);
  $("hello-name").oninput();
}
