// What the page of the dashboard shows, and when. Whatever the server says goes in as text; knows no markup but the page's own.

const $ = (id) => document.getElementById(id);
const base = new URL(".", location.href);
const VIEWS = ["overview", "subscribers", "topics", "groups", "arbiters", "nodes", "incidents"];
const POLL_MS = 2000;
const RECONNECT_MS = 2000;
/** Without a word for so long, the stream is thought dead: it says something each second. */
const SILENCE_MS = 4500;
const WINDOW_MS = 120_000;
/** As many as a page of a list has at most. */
const NODES_SHOWN = 200;

// ---- words -----------------------------------------------------------------------------------------------------------

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const count = (number) => (number == null ? "–" : grouped.format(number));
const rate = (number) => (number == null ? "–" : number < 100 ? tenths.format(number) : grouped.format(number));
const many = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;

function age(ms) {
  if (ms == null) return "–";
  if (ms < 1000) return `${ms} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago, in its largest unit. */
function ago(ms) {
  if (ms < 1000) return "now";
  const units = [[86_400_000, "d"], [3_600_000, "h"], [60_000, "min"], [1000, "s"]];
  const [unit, word] = units.find(([unit]) => ms >= unit);
  return `${Math.floor(ms / unit)} ${word}`;
}

function bytes(number) {
  if (number == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const at = number < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(number) / 10));
  return `${at ? tenths.format(number / 1024 ** at) : count(number)} ${units[at]}`;
}

/** `alloc::vec::Vec<app::Price>` as `Vec<Price>`. */
const short = (type) => type.replace(/(?:(?:[\p{L}\p{N}_]+|\{\{closure\}\})::)+/gu, "");

/** What happened, in words: `[level, what, about whom, more]`. */
const INCIDENTS = {
  panicked: (of) => ["bad", "An actor panicked", [type(of.actor)], `${many(of.subscriptions, "subscription", "subscriptions")} ended, ${many(of.discarded, "event", "events")} discarded`],
  overflowed: (of) => ["warn", "Events missed: the inbox was full", [of.topic, type(of.actor), of.metadata], many(of.events, "event", "events")],
  stuck: (of) => ["bad", "A subscriber takes nothing", [of.topic, type(of.actor), of.metadata], `${count(of.missed)} missed so far`],
  disconnected: (of) => ["warn", "Disconnected: no room for more", [of.topic, type(of.actor)], `${many(of.discarded, "event", "events")} discarded`],
  port_full: (of) => ["bad", `The port of arbiter ${of.arbiter} was full`, [], `${many(of.refused, "event", "events")} refused`],
  registry_restarted: (of) => ["bad", `The registry of arbiter ${of.arbiter} panicked and was started again`, []],
  foreign_panic: (of) => ["bad", `A waker, a drop or a mailbox panicked on arbiter ${of.arbiter}`, []],
  history_gap: (of) => ["warn", "History that was asked for is gone", [of.topic], `after ${of.asked_after}: ${of.cause}`],
  log_unavailable: (of) => ["bad", `The log was not there for ${of.doing}`, [of.topic], of.error],
  log_closed: () => ["bad", "The log's thread panicked: the log is closed", []],
  delivery_failed: (of) => ["warn", "A consumer failed; the entry comes again", [of.topic, of.group], `${of.entry}: ${of.reason}`],
  dead_letter: (of) => ["bad", "Dead letter: an entry was given up", [of.topic, of.group], `${of.entry}: ${of.reason}`],
  undecodable: (of) => ["bad", "Cannot be decoded", [of.topic, of.message], of.error],
  unknown_message: (of) => ["bad", "Has a name that no type here has", [of.topic, of.message], "Builder::message gives it one"],
  node_down: (of) => ["bad", "A node has gone", [of.name], `${of.node}: ${of.reason}`],
  node_up: (of) => ["good", "A node is here", [of.name], of.node],
  node_refused: (of) => ["bad", "A node has the other setting of peer_interest: nothing crosses", [of.name], of.node],
  link_down: (of) => ["bad", "The link to the engine is lost", [], of.reason],
  link_up: () => ["good", "The link to the engine is there", []],
  lost: (of) => ["bad", "Broadcasts of another node did not arrive", [of.topic], `${many(of.events, "event", "events")} from ${of.origin}`],
};

/** A type's name: short, with all of it for who asks. */
const type = (name) => ({ text: short(name), title: name });

// ---- text into the page ----------------------------------------------------------------------------------------------

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A name of someone's: its own direction, cut where it has no room, whole in its title. */
function name(value, className) {
  const node = make("bdi", className);
  node.dir = "auto";
  rename(node, value);
  return node;
}

function rename(node, value) {
  const { text, title } = typeof value === "object" ? value : { text: value, title: value };
  put(node, text);
  if (node.title !== title) node.title = title;
}

// ---- tables ----------------------------------------------------------------------------------------------------------

/** Rows of cells that are changed in place: what was selected stays so. */
class Table {
  #host;
  #columns;
  #body = make("tbody");
  #heads = [];
  #empty = make("p", "empty");
  #table;

  constructor(host, columns, { empty, sort } = {}) {
    this.#host = host;
    this.#columns = columns;
    const row = make("tr");
    row.setAttribute("role", "row");
    for (const column of columns) {
      const head = make("th", column.kind === "number" || column.kind === "bar" ? "number" : "");
      head.scope = "col";
      head.setAttribute("role", "columnheader");
      if (column.width) head.style.width = column.width;
      if (column.help) head.title = column.help;
      if (sort && column.sort) {
        const button = make("button", "", column.label);
        button.type = "button";
        button.addEventListener("click", () => sort(column.sort));
        head.append(button);
      } else {
        head.textContent = column.label;
      }
      row.append(head);
      this.#heads.push(head);
    }
    this.#table = make("table", "", make("thead", "", row), this.#body);
    // A card on a narrow screen is a row all the same.
    this.#table.setAttribute("role", "table");
    this.#empty.textContent = empty ?? "Nothing here.";
    host.replaceChildren(this.#table, this.#empty);
  }

  show(rows, sorted) {
    this.#heads.forEach((head, at) => {
      const by = sorted && this.#columns[at].sort === sorted.sort;
      if (by) head.setAttribute("aria-sort", sorted.dir === "asc" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    this.#table.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    while (this.#body.rows.length > rows.length) this.#body.lastChild.remove();
    rows.forEach((of, at) => this.#row(this.#body.rows[at] ?? this.#newRow(), of));
  }

  #newRow() {
    const row = make("tr");
    row.setAttribute("role", "row");
    for (const { kind, label, wide } of this.#columns) {
      const cell = make("td", `${kind === "bar" ? "gauge" : (kind ?? "")}${wide ? " wide" : ""}`);
      cell.setAttribute("role", "cell");
      cell.dataset.label = label;
      if (kind === "bar") cell.append(make("div", "bar", make("span", "track", make("i")), make("span")));
      else if (kind === "number") cell.append(make("span"));
      else cell.append(name(""));
      row.append(cell);
    }
    this.#body.append(row);
    return row;
  }

  #row(row, of) {
    this.#columns.forEach(({ kind, of: read }, at) => {
      const cell = row.cells[at];
      const value = read(of);
      if (kind === "bar") {
        const [track, text] = cell.firstChild.children;
        const part = value.max ? Math.min(1, value.depth / value.max) : 0;
        track.firstChild.style.width = `${(part * 100).toFixed(1)}%`;
        track.firstChild.className = part >= 1 ? "bad" : part >= 0.5 ? "warn" : "";
        put(text, `${count(value.depth)} / ${count(value.max)}`);
      } else if (kind === "number") {
        const { text, level, title } = typeof value === "object" ? value : { text: value };
        put(cell.firstChild, text);
        cell.firstChild.className = level ?? (text === "0" || text === "–" ? "zero" : "");
        cell.title = title ?? "";
      } else {
        const { text, title, sub } = typeof value === "object" ? value : { text: value, title: value };
        rename(cell.firstChild, { text, title: title ?? text });
        cell.classList.toggle("none", text === "–");
        if (sub) rename(cell.children[1] ?? cell.appendChild(name("", "sub")), sub);
        else cell.children[1]?.remove();
      }
    });
  }
}

const number = (label, key, more = {}) => ({ label, kind: "number", sort: key, of: (row) => count(row[key]), ...more });
const loss = (value) => ({ text: count(value), level: value > 0 ? "bad" : undefined });
const wait = (ms, warn, bad) => ({ text: age(ms || null), level: ms >= bad ? "bad" : ms >= warn ? "warn" : undefined });

const subscriber = (...widths) => [
  { label: "Actor", kind: "lead", sort: "actor", width: widths[0], of: (row) => type(row.actor) },
  { label: "Topic", wide: true, width: widths[1], sort: "topic", of: (row) => row.topic },
  { label: "Metadata", kind: "soft", wide: true, sort: "metadata", of: (row) => row.metadata ?? "–" },
];
const DEPTH = { label: "Waiting", kind: "bar", wide: true, sort: "depth", help: "Events that wait, and how many may", of: (row) => ({ depth: row.depth, max: row.capacity }) };
const OLDEST = { label: "Oldest", kind: "number", sort: "oldest", width: "7.5%", help: "How long the oldest of what waits has waited", of: (row) => wait(row.oldest_ms, 1000, 10_000) };
const STALLED = { label: "Stalled", kind: "number", sort: "stalled", width: "7.5%", help: "How long it has had something to read and has taken nothing", of: (row) => wait(row.stalled_ms, 1000, 10_000) };
const MISSED = { label: "Missed", kind: "number", sort: "missed", width: "8%", help: "Events lost by overflow or at a full port", of: (row) => loss(row.missed) };

const ARBITER = { label: "Arbiter", kind: "lead", sort: "arbiter", of: (row) => (row.background ? `Background ${row.arbiter}` : `Arbiter ${row.arbiter}`) };
const PORT = { label: "Port", kind: "bar", wide: true, sort: "port_depth", help: "Events in the port, and how many it takes", of: (row) => ({ depth: row.port_depth, max: row.port_capacity }) };
const WAITS = { label: "Waits", kind: "number", sort: "port_waits", help: "How long the port has not been emptied: its registry has had no turn", of: (row) => wait(row.port_waits_ms, 100, 1000) };
const SLICE = { label: "Slice", kind: "number", sort: "slice", help: "What others took on the arbiter's thread between two turns of one fan-out; the registry aims at 0.5 ms", of: (row) => ({ text: `${tenths.format(row.slice_us / 1000)} ms`, level: row.slice_us >= 50_000 ? "bad" : row.slice_us >= 5000 ? "warn" : "" }) };
const REFUSED = { label: "Refused", kind: "number", sort: "port_refused", help: "Events that found the port full", of: (row) => loss(row.port_refused) };

/** The views that are one list of the server's: found, sorted and cut there. */
const LISTS = {
  subscribers: {
    title: "Subscribers", unit: ["subscription", "subscriptions"], find: "Topic, actor, message or metadata",
    columns: [
      ...subscriber("16%", "16%"), { ...DEPTH, width: "17%" }, OLDEST, STALLED, MISSED,
      number("Delivered", "delivered", { width: "8%" }), number("Arbiter", "arbiter", { width: "6.5%" }),
    ],
  },
  topics: {
    title: "Topics", unit: ["topic", "topics"], find: "Topic or message",
    columns: [
      { label: "Topic", kind: "lead", sort: "topic", width: "36%", of: (row) => row.topic },
      { label: "Message", wide: true, sort: "message", of: (row) => type(row.message) },
      number("Subscribers", "subscribers", { width: "11%" }), number("Arbiters", "arbiters", { width: "9%" }),
      number("Events", "events", { width: "11%", help: "Since its first subscriber came" }),
      number("Backlog", "backlog", { width: "11%", help: "Events kept for its slowest subscriber" }),
    ],
  },
  groups: {
    title: "Consumer groups", unit: ["topic of the log", "topics of the log"], find: "Topic or group", byCursor: true,
    ordered: ["group or topic without one", "groups and topics without one"],
    columns: [
      { label: "Topic", kind: "lead", sort: "topic", width: "15%", of: (row) => row.topic },
      { label: "Group", wide: true, width: "15%", of: (row) => row.group ?? "–" },
      { ...number("Entries", "entries"), of: (row) => ({ text: count(row.entries), title: `${bytes(row.bytes)}, ${count(row.appended)} ever` }) },
      { label: "Lag", kind: "number", sort: "lag", help: "Entries that no consumer has had", of: (row) => ({ text: count(row.lag), level: row.lag > 0 ? "warn" : undefined }) },
      { label: "Pending", kind: "number", sort: "pending", help: "Delivered, and not acked", of: (row) => count(row.pending) },
      { label: "Oldest", kind: "number", sort: "oldest", help: "How long ago the oldest pending entry was appended", of: (row) => wait(row.oldest_pending_ms, 30_000, 300_000) },
      { label: "Attempt", kind: "number", sort: "attempt", help: "How often that one was delivered", of: (row) => ({ text: count(row.oldest_pending_attempt), level: row.oldest_pending_attempt > 1 ? "warn" : undefined }) },
      { label: "Consumers", kind: "number", sort: "consumers", help: "Its consumers on all nodes", of: (row) => ({ text: count(row.consumers), level: row.consumers === 0 && row.pending ? "bad" : undefined }) },
      { label: "Handled", kind: "number", sort: "handled", help: "By this node", of: (row) => count(row.here?.handled) },
      { label: "Again", kind: "number", sort: "redelivered", help: "Redeliveries to this node", of: (row) => ({ text: count(row.here?.redelivered), level: row.here?.redelivered ? "warn" : undefined }) },
      { label: "Failed", kind: "number", sort: "failed", help: "On this node", of: (row) => loss(row.here?.failed) },
      { label: "Dead", kind: "number", sort: "dead_letters", help: "Dead letters of this node", of: (row) => loss(row.here?.dead_letters) },
    ],
  },
  arbiters: {
    title: "Arbiters", unit: ["arbiter", "arbiters"], find: "Number, or background",
    columns: [
      { ...ARBITER, width: "13%" }, { ...PORT, width: "20%" }, number("Subscribers", "subscribers"),
      { label: "Peak", kind: "number", help: "The most that were in the port at once", of: (row) => count(row.port_peak) },
      WAITS, SLICE, REFUSED, number("Events", "events"), number("Delivered", "delivered"),
      { label: "Per s", kind: "number", sort: "per_second", help: "Delivered in the last whole second", of: (row) => count(row.delivered_per_second) },
      { label: "Panics", kind: "number", help: "Of its registry, and of others' code that it ran", of: (row) => loss(row.registry_restarts + row.foreign_panics) },
    ],
  },
  incidents: { title: "Incidents", unit: ["incident", "incidents"], find: "Topic, actor, kind or reason" },
};

// ---- incidents -------------------------------------------------------------------------------------------------------

function showIncidents(list, incidents, now) {
  if (incidents.length === 0) {
    list.replaceChildren(make("li", "none", make("span", "note", "Nothing has gone wrong.")));
    return;
  }
  // Their texts change with their ids and counts alone; their ages, each time.
  while (list.children.length > incidents.length || list.firstChild?.className === "none") list.lastChild.remove();
  incidents.forEach((incident, at) => {
    const key = `${incident.id} ${incident.times} ${incident.at_ms}`;
    const item = list.children[at] ?? list.appendChild(make("li"));
    if (item.dataset.key !== key) {
      item.dataset.key = key;
      const unknown = (of) => ["", String(of.kind).replaceAll("_", " "), [], ""];
      const [level, what, about, more] = (INCIDENTS[incident.kind] ?? unknown)(incident);
      item.className = level;
      const time = make("time");
      time.dateTime = new Date(incident.at_ms).toISOString();
      time.title = full.format(incident.at_ms);
      const times = make("span", "times", incident.times > 1 ? `${count(incident.times)}×` : "");
      times.title = incident.times > 1 ? `first at ${full.format(incident.first_ms)}` : "";
      const names = about.filter((of) => of != null).map((of) => name(of));
      if (more) names.push(name(more, "plain"));
      item.replaceChildren(time, name(what, "what"), times, make("span", "about", ...names.flatMap((of, at) => (at ? [" · ", of] : [of]))));
    }
    put(item.firstChild, ago(now - incident.at_ms));
  });
}

// ---- plots -----------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** 1, 2 or 5 times a power of ten, and no less than one. */
function ceiling(max) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, max)));
  return [1, 2, 5, 10].map((by) => by * power).find((nice) => nice >= max) ?? 10 * power;
}

/** One rate over the last two minutes. */
class Plot {
  #svg;
  #key;
  #title;
  #at = null;
  #points = [];

  constructor(svg, key, title, pick) {
    [this.#svg, this.#key, this.#title] = [svg, key, title];
    new ResizeObserver(() => this.show(this.#points)).observe(svg);
    svg.addEventListener("pointermove", (event) => pick(this.#nearest(event.offsetX)));
    svg.addEventListener("pointerleave", () => pick(null));
  }

  /** Marks the time of this point; none, for `null`. */
  mark(point) {
    this.#at = point;
    this.show(this.#points);
  }

  #x(at, now, width) {
    return LEFT + (1 - (now - at) / WINDOW_MS) * (width - LEFT - RIGHT);
  }

  #nearest(x) {
    const now = this.#points.at(-1)?.at_ms;
    const far = (point) => Math.abs(this.#x(point.at_ms, now, this.#svg.clientWidth) - x);
    return this.#points.reduce((best, point) => (best && far(best) <= far(point) ? best : point), null);
  }

  show(points) {
    this.#points = points;
    const [width, height] = [this.#svg.clientWidth, this.#svg.clientHeight];
    if (!width || !height) return;
    const now = points.at(-1)?.at_ms ?? 0;
    const top = ceiling(Math.max(0, ...points.map((point) => point[this.#key])));
    const x = (point) => this.#x(point.at_ms, now, width).toFixed(1);
    const bottom = this.#svg.classList.contains("small") ? BOTTOM : 8;
    const y = (value) => (TOP + (1 - value / top) * (height - TOP - bottom)).toFixed(1);
    const parts = [];
    const lines = this.#svg.classList.contains("small") ? [0, 1] : [0, 0.5, 1];
    for (const at of lines) {
      parts.push(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: Math.round(y(top * at)) + 0.5, y2: Math.round(y(top * at)) + 0.5 }));
      const label = draw("text", { x: LEFT - 8, y: Number(y(top * at)) + 4, "text-anchor": "end" });
      label.textContent = rate(top * at);
      parts.push(label);
    }
    const title = draw("text", { class: "title", x: LEFT, y: 13 });
    title.textContent = this.#title;
    parts.push(title);
    const times = this.#svg.classList.contains("small") ? [[WINDOW_MS, "2 min ago"], [WINDOW_MS / 2, "1 min"], [0, "now"]] : [];
    for (const [ago, text] of times) {
      const anchor = ago === 0 ? "end" : ago === WINDOW_MS ? "start" : "middle";
      const label = draw("text", { x: this.#x(now - ago, now, width), y: height - 3, "text-anchor": anchor });
      label.textContent = text;
      parts.push(label);
    }
    for (const run of runs(points.filter((point) => now - point.at_ms <= WINDOW_MS))) {
      const line = run.map((point, at) => `${at ? "L" : "M"}${x(point)} ${y(point[this.#key])}`).join("");
      if (run.length > 1) parts.push(draw("path", { class: "area", d: `${line}L${x(run.at(-1))} ${y(0)}L${x(run[0])} ${y(0)}Z` }));
      parts.push(draw("path", { class: "line", d: run.length > 1 ? line : `${line}h.1` }));
    }
    const marked = this.#at ?? points.at(-1);
    if (marked && now - marked.at_ms <= WINDOW_MS) {
      if (this.#at) parts.push(draw("line", { class: "cursor", x1: x(marked), x2: x(marked), y1: TOP, y2: height - bottom }));
      parts.push(draw("circle", { class: "dot", cx: x(marked), cy: y(marked[this.#key]), r: 3 }));
    }
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const last = points.at(-1)?.[this.#key];
    this.#svg.setAttribute("aria-label", `${this.#title}: ${rate(last)} now, ${rate(Math.max(0, ...points.map((point) => point[this.#key])))} at most in two minutes`);
    this.#svg.replaceChildren(...parts);
  }
}

/** Points that belong together: in between, nobody looked. */
function runs(points) {
  const all = [];
  for (const point of points) {
    const run = all.at(-1);
    if (run && point.at_ms - run.at(-1).at_ms < 3500) run.push(point);
    else all.push([point]);
  }
  return all;
}

const LEFT = 58;
const RIGHT = 16;
const TOP = 22;
const BOTTOM = 20;

// ---- the overview and the nodes --------------------------------------------------------------------------------------

let latest = null;
let rates = [];

function pick(point) {
  for (const plot of plots) plot.mark(point);
  const text = point && `${clock.format(point.at_ms)} · ${rate(point.delivered)} delivered/s · ${rate(point.missed)} missed/s · ${rate(point.accepted)} accepted/s`;
  put($("readout"), text ?? "the last two minutes");
}

const plots = [
  new Plot($("plot-delivered"), "delivered", "delivered/s", pick),
  new Plot($("plot-missed"), "missed", "missed/s", pick),
];

const tiles = new Map();
for (const [key, label] of [["subscribers", "Subscribers"], ["topics", "Topics"], ["delivered", "Delivered/s"], ["missed", "Missed/s"], ["waiting", "Waiting"], ["incidents", "Incidents"]]) {
  const tile = make("div", "", make("dt", "", label), make("dd", "value", "–"), make("dd", "sub", ""));
  tile.dataset.tile = key;
  $("tiles").append(tile);
  tiles.set(key, tile);
}

function tile(key, value, sub, level = "") {
  const node = tiles.get(key);
  node.className = level;
  put(node.children[1], value);
  put(node.children[2], sub);
}

const slow = new Table($("slow").querySelector(".table"), [...subscriber("19%", "20%"), { ...DEPTH, width: "19%" }, OLDEST, STALLED, MISSED], {
  empty: "Everyone keeps up: nothing waits.",
});
const arbiters = new Table($("arbiters-short").querySelector(".table"), [
  { ...ARBITER, width: "20%" }, { ...PORT, width: "34%" }, WAITS, SLICE, REFUSED,
], { empty: "No arbiter has a subscriber yet." });
const others = new Table($("nodes-table"), [
  { label: "Name", kind: "lead", of: (row) => row.name },
  { label: "Id", kind: "code", wide: true, of: (row) => row.node },
  { label: "Received", kind: "number", help: "Its broadcasts that came in here, since it came up", of: (row) => ({ text: count(row.received), title: bytes(row.received_bytes) }) },
  { label: "Sent", kind: "number", help: "Broadcasts sent to it; not known where the engine carries topics", of: (row) => ({ text: count(row.sent), title: bytes(row.sent_bytes) }) },
  { label: "Lost", kind: "number", help: "Its broadcasts that did not arrive here", of: (row) => loss(row.lost) },
  { label: "Heard", kind: "number", help: "How long ago anything came from it", of: (row) => ({ text: ago(row.silent_ms), level: row.silent_ms >= 3000 ? "warn" : "" }) },
], { empty: "None is up, as far as this node knows." });

function showHead() {
  const { stats, name: called, version } = latest;
  rename($("name"), called ?? "pubsub");
  put($("node"), stats.node);
  put($("uptime"), `up ${age(Math.floor(stats.uptime_ms / 1000) * 1000).replace("0 ms", "now")}`);
  $("uptime").title = `actix-pubsub ${version}`;
  document.title = called ? `${called} · pubsub` : "pubsub";
}

function showOverview() {
  const { stats, rates: now } = latest;
  tile("subscribers", count(stats.subscribers), many(stats.subscriptions_total, "subscription", "subscriptions"));
  tile("topics", count(stats.topics), many(stats.arbiters.length, "arbiter", "arbiters"));
  tile("delivered", rate(now?.delivered), `${count(stats.delivered)} so far`);
  tile("missed", rate(now?.missed), `${count(stats.missed)} so far`, now?.missed > 0 ? "bad" : "");
  const late = latest.slow[0];
  tile("waiting", count(stats.waiting), late ? `the slowest for ${age(Math.max(late.oldest_ms ?? 0, late.stalled_ms))}` : "nobody is behind", late?.stalled_ms >= 10_000 ? "warn" : "");
  const last = latest.incidents[0];
  tile("incidents", count(stats.incidents), last ? `the last one ${ago(latest.at_ms - last.at_ms).replace(/\d.*/, "$& ago").replace(/^now/, "just now")}` : "none so far");
  for (const plot of plots) plot.show(rates);
  slow.show(latest.slow);
  const busy = (of) => [of.port_depth / of.port_capacity, of.port_waits_ms];
  const byBusy = [...stats.arbiters].sort((one, other) => busy(other)[0] - busy(one)[0] || busy(other)[1] - busy(one)[1] || one.arbiter - other.arbiter);
  arbiters.show(byBusy.slice(0, 8));
  showClusterShort();
  showIncidents($("incidents-short").querySelector("ol"), latest.incidents.slice(0, 10), latest.at_ms);
}

function facts(of) {
  const list = make("dl", "facts");
  for (const [label, value, level] of of) {
    const shown = name(value);
    const dd = make("dd", level ?? (value === "0" ? "zero" : ""), shown);
    list.append(make("div", "", make("dt", "", label), dd));
  }
  return list;
}

function showClusterShort() {
  const { stats: { cluster: of }, nodes } = latest;
  $("cluster-short").hidden = !of;
  if (!of) return;
  $("cluster-body").replaceChildren(facts([
    [`Link to ${of.engine}`, of.link_up ? "up" : "down", of.link_up ? "good" : "bad"], ["Other nodes", count(nodes.length)],
    ["Queue", `${count(of.queue_depth)} / ${count(of.queue_capacity)}`], ["Sent", count(of.sent)],
    ["Given to subscribers", count(of.delivered)], ["Lost on the way here", count(of.lost), of.lost ? "bad" : undefined],
  ]));
}

function showNodes() {
  const of = latest.stats.cluster;
  const peers = [...(of?.peers ?? [])].sort((one, other) => one.name.localeCompare(other.name));
  const left = peers.length > NODES_SHOWN ? `; here are the first ${NODES_SHOWN} by name` : "";
  $("relay").hidden = !of;
  put($("nodes-note"), of ? `${many(peers.length, "other node is", "other nodes are")} up${left}` : "this pub/sub is no node of a cluster");
  others.show(peers.slice(0, NODES_SHOWN));
  if (!of) return;
  put($("relay-note"), `${of.engine}, ${of.link_up ? "connected" : "not connected"}`);
  const bad = (value) => [count(value), value > 0 ? "bad" : undefined];
  const drops = (pairs) => pairs.map(([label, value, harmless]) => (harmless ? [label, count(value)] : [label, ...bad(value)]));
  const title = (text) => make("p", "facts-title", text);
  $("relay-body").replaceChildren(
    facts([
      ["Engine", of.engine], ["Link", of.link_up ? "up" : "down", of.link_up ? "good" : "bad"],
      ["Links made", count(of.links)], ["Links lost or refused", ...bad(of.link_failures)],
      ["Topics asked for", count(of.topics)], ["Queue", `${count(of.queue_depth)} / ${count(of.queue_capacity)}`], ["Queue, at most", count(of.queue_peak)],
      ["Sent", count(of.sent)], ["Sent, bytes", bytes(of.sent_bytes)], ["Received, frames", count(of.received)],
      ["Received, bytes", bytes(of.received_bytes)], ["Given to subscribers", count(of.delivered)], ["Lost on the way here", ...bad(of.lost)],
    ]),
    title("Not sent, because"),
    facts(drops([["nobody listens elsewhere", of.dropped_nobody_listens, true], ["the queue was full", of.dropped_queue_full], ["there was no link", of.dropped_link_down]])),
    title("Received and dropped, because"),
    facts(drops([
      ["it was this node's own", of.dropped_own, true], ["it came twice", of.dropped_old, true], ["nobody asked any more", of.dropped_unasked, true],
      ["it is no frame", of.dropped_malformed], ["it is of a newer version", of.dropped_newer], ["no type has its name", of.dropped_unknown_message],
      ["it could not be decoded", of.dropped_undecodable], ["too many waited", of.dropped_inbound_full], ["the transport panicked", of.panics],
    ])),
  );
}

// ---- one list --------------------------------------------------------------------------------------------------------

let view = null;
/** What is asked of the list that is shown; only what differs from the server's own defaults. */
let asked = new URLSearchParams();
/** Where the pages before this one began, for lists that only go on. */
let before = [];
let table = null;
let timer = 0;
let generation = 0;
let following = null;

function openList() {
  const list = LISTS[view];
  put($("list-title"), list.title);
  $("list").setAttribute("aria-label", list.title);
  $("find").placeholder = list.find;
  $("find").value = asked.get("q") ?? "";
  $("per").value = asked.get("per") ?? "50";
  put($("list-count"), "");
  put($("place"), "");
  $("list-error").hidden = true;
  $("list-table").hidden = !list.columns;
  $("list-incidents").hidden = Boolean(list.columns);
  $("list-table").replaceChildren();
  $("list-incidents").replaceChildren();
  table = list.columns && new Table($("list-table"), list.columns, { empty: "Nothing is found.", sort: sortBy });
  [$("back").disabled, $("next").disabled] = [true, true];
  load();
}

async function load() {
  clearTimeout(timer);
  const mine = ++generation;
  if (!LISTS[view]) return;
  if (!document.hidden) {
    const url = new URL(view, base);
    url.search = asked;
    url.searchParams.set("format", "json");
    const answer = await ask(url);
    if (mine !== generation) return;
    $("list-error").hidden = answer.ok;
    if (answer.ok) showList(answer.body);
    else put($("list-error"), answer.text);
  }
  if (!paused) timer = setTimeout(load, POLL_MS);
}

async function ask(url) {
  try {
    const response = await fetch(url, { headers: { accept: "application/json" }, cache: "no-store" });
    const body = await response.json();
    return response.ok ? { ok: true, body } : { ok: false, text: `The server refused: ${body.message ?? response.status}.` };
  } catch {
    return { ok: false, text: "The server does not answer." };
  }
}

function showList(body) {
  const list = LISTS[view];
  if (list.byCursor) {
    const rows = body.items.flatMap(({ groups, ...topic }) => (groups.length ? groups.map((group) => ({ ...topic, ...group })) : [topic]));
    following = body.next;
    shownSort = body.sort ? body : { sort: "topic", dir: "asc" };
    table.show(rows, shownSort);
    if (!body.log) put($("list-count"), "this pub/sub has no log");
    else if (body.sort) put($("list-count"), `${many(body.matched, ...list.ordered)}${body.next ? `, of the first ${count(body.looked_at)} topics` : ""}`);
    else put($("list-count"), `${many(body.items.length, ...list.unit)} here`);
    if (body.sort) return showPlace(body);
    put($("place"), asked.has("after") ? "further on" : "from the first");
    [$("back").disabled, $("next").disabled] = [!asked.has("after"), following == null];
    return;
  }
  showPlace(body);
  const found = body.matched === body.total ? many(body.total, ...list.unit) : `${count(body.matched)} of ${many(body.total, ...list.unit)}`;
  put($("list-count"), found);
  if (table) table.show(body.items, body);
  else showIncidents($("list-incidents"), body.items, body.at_ms);
  shownSort = body;
}

/** Which part of a list is shown, and whether there is more of it. */
function showPlace(body) {
  const [from, to] = [(body.page - 1) * body.per + 1, (body.page - 1) * body.per + body.items.length];
  put($("place"), body.items.length ? `${count(from)}–${count(to)}` : "–");
  [$("back").disabled, $("next").disabled] = [body.page <= 1, to >= body.matched];
}

let shownSort = null;

/** Asks anew, from the first page unless told otherwise. */
function change(values, keep = false) {
  if (!keep) {
    asked.delete("page");
    asked.delete("after");
    before = [];
  }
  for (const [key, value] of Object.entries(values)) {
    if (value == null || value === "") asked.delete(key);
    else asked.set(key, value);
  }
  history.replaceState(null, "", address());
  load();
}

function sortBy(sort) {
  const again = shownSort?.sort === sort;
  const dir = again ? (shownSort.dir === "asc" ? "desc" : "asc") : null;
  // By name the log's own order goes on through all of its topics.
  const own = LISTS[view].byCursor && sort === "topic" && dir !== "desc";
  change(own ? { sort: null, dir: null } : { sort, dir });
}

function turn(by) {
  const page = Number(asked.get("page") ?? 1) + by;
  if (!LISTS[view].byCursor || shownSort?.page) change({ page: page > 1 ? page : null }, true);
  else if (by > 0) {
    before.push(asked.get("after"));
    change({ after: following }, true);
  } else change({ after: before.pop() }, true);
}

let typing = 0;
$("find").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => change({ q: $("find").value }), 200);
});
$("per").addEventListener("change", () => change({ per: $("per").value === "50" ? null : $("per").value }));
$("back").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));

// ---- views -----------------------------------------------------------------------------------------------------------

function address() {
  const url = new URL(view === "overview" ? "./" : view, base);
  url.search = asked;
  return url;
}

function show() {
  const last = location.pathname.slice(base.pathname.length);
  view = VIEWS.includes(last) ? last : "overview";
  asked = new URLSearchParams(location.search);
  asked.delete("format");
  before = [];
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.dataset.view === view) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  $("overview").hidden = view !== "overview";
  $("nodes").hidden = view !== "nodes";
  $("list").hidden = !LISTS[view];
  if (LISTS[view]) openList();
  else {
    clearTimeout(timer);
    render();
  }
}

function render() {
  if (!latest) return;
  showHead();
  if (view === "overview") showOverview();
  if (view === "nodes") showNodes();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-view]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  show();
  scrollTo(0, 0);
});
addEventListener("popstate", show);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) load();
});

// ---- the stream ------------------------------------------------------------------------------------------------------

let paused = false;
let state = "wait";
let heard = 0;

function say(next) {
  state = next;
  const shown = paused && next === "live" ? "paused" : next;
  $("link").dataset.state = shown;
  put($("link"), { wait: "connecting", live: "live", lost: "connection lost", paused: "paused" }[shown]);
}

function lose(why) {
  if (state !== "lost") {
    const since = latest ? ` What is shown is of ${clock.format(latest.at_ms)}.` : "";
    put($("notice"), `${why}${since} Trying again.`);
    $("notice").hidden = false;
  }
  say("lost");
}

function take(overview) {
  heard = Date.now();
  if (state !== "live") {
    $("notice").hidden = true;
    say("live");
  }
  const now = overview.rates;
  if (now && !(rates.at(-1)?.at_ms >= now.at_ms)) rates.push(now);
  rates = rates.filter((point) => overview.at_ms - point.at_ms <= WINDOW_MS + 2000);
  if (paused) return;
  latest = overview;
  render();
}

/** What came before: for a page that is new, or was away. */
async function catchUp() {
  const url = new URL("./", base);
  url.searchParams.set("format", "json");
  const answer = await ask(url);
  if (!answer.ok) return lose(answer.text);
  const known = new Map([...answer.body.history, ...rates].map((point) => [point.at_ms, point]));
  rates = [...known.values()].sort((one, other) => one.at_ms - other.at_ms);
  if (!latest || (!paused && answer.body.at_ms > latest.at_ms)) latest = answer.body;
  render();
}

function connect() {
  const source = new EventSource(new URL("live", base));
  source.addEventListener("open", () => {
    heard = Date.now();
    catchUp();
  });
  source.addEventListener("overview", (event) => take(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    lose("The connection to the server is lost.");
    if (source.readyState !== EventSource.CLOSED) return;
    // It was refused, and the browser gives up.
    catchUp();
    setTimeout(connect, RECONNECT_MS);
  });
}

setInterval(() => {
  if (state === "live" && !document.hidden && Date.now() - heard > SILENCE_MS) lose("The server has gone silent.");
}, 1000);

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  put($("pause"), paused ? "Resume" : "Pause");
  say(state);
  if (paused) clearTimeout(timer);
  else load();
});

show();
connect();
