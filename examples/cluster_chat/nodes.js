// What the page of a cluster shows beside the chat: which nodes are up, and what was lost between them. The page itself is that of the example chat.
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const section = make("section");
section.id = "cluster";
const title = make("h2", "", "Nodes");
const list = make("ul");
list.id = "nodes";
section.append(title, list);
document.getElementById("join").before(section);
const own = make("span", "tag node");
own.id = "own-node";
document.getElementById("brand").append(own);
const bar = make("div", "bar");
[bar.id, bar.hidden] = ["link-down", true];
bar.setAttribute("role", "status");
bar.append(make("span"));
document.getElementById("alert").before(bar);

let client = null;
let version = -1;                // Of the news that is shown.
let known = null;                // Ids of the nodes that are up, after the first news.
const notice = (text, kind, room) => dispatchEvent(new CustomEvent("chat:notice", { detail: { text, kind, room } }));

addEventListener("chat:client", ({ detail }) => {
  client = detail;
  client.subscribe("cluster", {
    onEvent: ({ data }) => show(data),
    onMissed: ask,
    // Another server may have come back, which counts from the start.
    onState: (state) => { if (state === "subscribed") { version = -1; ask(); } },
  });
});

async function ask() {
  try {
    const answer = await fetch("/nodes");
    if (answer.ok) show(await answer.json());
  } catch { /* The connection tells about itself. */ }
}

function show({ version: now, nodes, link_down, lost }) {
  if (lost) notice(`${lost.events} message${lost.events === 1 ? "" : "s"} from ${lost.node} did not arrive here`, "warn", lost.room);
  if (now < version) return;
  version = now;
  own.textContent = nodes[0].name;
  bar.hidden = !link_down;
  bar.firstElementChild.textContent = `${nodes[0].name} is cut off from the other nodes: ${link_down}`;
  const up = new Map(nodes.filter(({ down }) => !down).map((node) => [node.id, node]));
  if (known) {
    for (const { id, name } of up.values()) if (!known.has(id)) notice(`${name} is up`, "up");
    for (const [id, { name }] of known) {
      const why = nodes.find((node) => node.id === id)?.down;
      if (!up.has(id)) notice(`${name} is down${why ? `: ${why}` : ""}`, "down");
    }
  }
  known = up;
  title.textContent = `Nodes · ${up.size} up`;
  list.replaceChildren(...nodes.map(({ name, guests, down }, at) => {
    const item = make("li", down ? "down" : "up");
    const text = make("bdi", "", name);
    item.title = down ? `${name} is down: ${down}` : `${name} is up`;
    const count = `${guests} guest${guests === 1 ? "" : "s"}`;
    item.append(text, make("span", "count", down ? "down" : at === 0 ? `${count}, yours` : count));
    return item;
  }));
}
