// Draws the open rows of a search tree and handles mouse and keys. Every text of the tree enters the
// document through textContent. Rows of a closed branch do not exist; a node with many children
// shows them by the hundred.
"use strict";
(() => {
const CHUNK = 200;      // children of one node that are shown at first, and more at a time
const MOST_ROWS = 5000; // rows that "Expand all" draws
const DEEPEST = 16;     // levels that are indented; beyond them the depth is written out
const find = id => document.getElementById(id);
const grid = find("grid"), rows = find("rows"), box = find("find");
const heads = [...grid.querySelectorAll("[data-key]")];
const name = new Map(heads.map(h => [h.dataset.key, h.textContent]));

let tree = null;        // the columns of the tree that is shown, and what follows from them
let open = new Set();   // nodes whose children are shown
let limit = new Map();  // how many of them, where it is not CHUNK
let drawn = new Map();  // row element of each node that has one
let selected = 0;
let hits = [], hitSet = new Set(), hit = -1; // what the search found, and where it is

function element(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function load(index) {
  tree = JSON.parse(find(`tree-${index}`).textContent);
  const count = tree.parent.length;
  tree.children = Array.from({ length: count }, () => []);
  tree.depth = new Array(count).fill(0);
  tree.place = new Array(count).fill(0); // among its siblings
  for (let i = 1; i < count; i++) {
    tree.place[i] = tree.children[tree.parent[i]].push(i) - 1;
    tree.depth[i] = tree.depth[tree.parent[i]] + 1;
  }
  tree.onLine = new Set(tree.principal);
  tree.ends = new Set(tree.terminal);
  tree.keys = heads.map(h => h.dataset.key).filter(key => tree[key]);
  tree.decimals = new Map(tree.keys.map(key => [key, decimals(tree[key])]));
  for (const h of heads) h.hidden = !tree[h.dataset.key];
  const deepest = tree.depth.reduce((a, b) => Math.max(a, b), 0);
  grid.style.setProperty("--numbers", Math.max(1, tree.keys.length - 1));
  grid.style.setProperty("--deepest", Math.min(deepest, DEEPEST));
  grid.style.setProperty("--said", tree.text.some(text => text !== null) ? "9rem" : "6rem");
  for (const img of document.querySelectorAll("img.picture")) {
    img.hidden = img.dataset.tree !== String(index);
  }
  limit = new Map();
  selected = 0;
  const line = tree.principal.slice(1).map(i => tree.action[i] ?? "?");
  const shown = line.length > 24 ? [...line.slice(0, 24), `… (${line.length - 24} more)`] : line;
  const hidden = Object.values(tree.hidden).reduce((sum, n) => sum + n, 0);
  const facts = [
    `${thousands(count)} ${count === 1 ? "node" : "nodes"}`,
    `${thousands(tree.visits[0])} visits`,
    `depth ${deepest}`,
    `value ${write(0, "value")}`,
    `principal line ${shown.join(" → ") || "(none)"}`,
  ];
  if (hidden) facts.splice(1, 0, `${thousands(hidden)} more not in this page`);
  tree.facts = facts.join(" · ");
  openLine();
  search(false);
}

function say(more) { find("summary").textContent = more ? `${tree.facts} · ${more}` : tree.facts; }
function thousands(n) { return n.toLocaleString("en"); }

function decimals(column) { // the same for a whole column, so that the points align
  let most = 0;
  for (const x of column) if (typeof x === "number") most = Math.max(most, Math.abs(x));
  if (most >= 1e7 || (most > 0 && most < 1e-3)) return -1;
  return most < 10 ? 3 : most < 100 ? 2 : most < 1000 ? 1 : 0;
}

function write(i, key) {
  const x = tree[key] ? tree[key][i] : null;
  if (x === null) return "–";
  if (typeof x === "string") return x;
  if (key === "visits") return thousands(x);
  const d = tree.decimals.get(key);
  return (d < 0 ? x.toPrecision(3) : x.toFixed(d)).replace("-", "−");
}

function textOf(i) {
  const text = tree.text[i];
  if (text === null) return i === 0 ? "(root)" : "";
  return text.trim() || (i === 0 ? "(start)" : "(empty)");
}

function shownChildren(i) {
  return open.has(i) ? tree.children[i].slice(0, limit.get(i) ?? CHUNK) : [];
}

// ---------------------------------------------------------------------------------- drawing

function makeRow(i) {
  const row = element("div", "row");
  row.setAttribute("role", "row");
  row.tabIndex = -1;
  row.dataset.node = i;
  row.setAttribute("aria-level", tree.depth[i] + 1);
  row.setAttribute("aria-setsize", i ? tree.children[tree.parent[i]].length : 1);
  row.setAttribute("aria-posinset", tree.place[i] + 1);
  row.setAttribute("aria-selected", "false");
  if (tree.children[i].length) row.setAttribute("aria-expanded", open.has(i));
  if (tree.onLine.has(i)) row.classList.add("principal");
  if (hitSet.has(i)) row.classList.add("hit");
  const cell = element("span", "node");
  cell.setAttribute("role", "gridcell");
  cell.style.setProperty("--depth", Math.min(tree.depth[i], DEEPEST));
  const twisty = element("span", "twisty");
  twisty.setAttribute("aria-hidden", "true");
  cell.append(twisty);
  if (tree.depth[i] > DEEPEST) cell.append(element("span", "deep", `depth ${tree.depth[i]}`));
  if (tree.action[i] !== null) {
    const action = element("span", "action");
    action.append(element("span", "unseen", "action "), String(tree.action[i]));
    cell.append(action);
  }
  const said = element("bdi", "said", textOf(i).slice(0, 400));
  said.dir = "auto";
  cell.append(said);
  if (tree.onLine.has(i)) cell.append(sign("◆", "principal line"));
  if (tree.ends.has(i)) cell.append(sign("■", "end"));
  const hidden = tree.hidden[i];
  if (hidden) cell.append(element("span", "mild", `+${thousands(hidden)} not shown`));
  row.append(cell);
  for (const key of tree.keys) {
    const text = write(i, key);
    const number = element("span", text === "–" ? "number none" : "number");
    number.setAttribute("role", "gridcell");
    if (key === "visits") {
      number.classList.add("bar");
      const bar = element("i");
      bar.style.setProperty("--share", tree.visits[i] / Math.max(1, tree.visits[0]));
      number.append(bar, element("span", "", text));
    } else number.textContent = text;
    row.append(number);
  }
  drawn.set(i, row);
  return row;
}

function sign(mark, meaning) {
  const made = element("span", "mild", mark);
  made.title = meaning;
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", meaning);
  return made;
}

function makeRest(i) { // the row that brings more children
  const rest = tree.children[i].length - (limit.get(i) ?? CHUNK);
  const row = element("div", "row rest");
  row.setAttribute("role", "row");
  row.tabIndex = -1;
  row.dataset.rest = i;
  row.setAttribute("aria-level", tree.depth[i] + 2);
  const text = `Show ${thousands(Math.min(CHUNK, rest))} of ${thousands(rest)} more`;
  const cell = element("span", "node");
  cell.setAttribute("role", "gridcell");
  cell.style.setProperty("--depth", Math.min(tree.depth[i] + 1, DEEPEST));
  cell.append(element("span", "twisty"), text);
  row.append(cell);
  return row;
}

function rowsBelow(top) { // in a fragment, without recursion: a branch may be very deep
  const made = document.createDocumentFragment();
  const stack = [];
  const push = i => {
    const children = shownChildren(i);
    if (open.has(i) && children.length < tree.children[i].length) stack.push(~i);
    for (let k = children.length - 1; k >= 0; k--) stack.push(children[k]);
  };
  push(top);
  while (stack.length) {
    const i = stack.pop();
    if (i < 0) { made.append(makeRest(~i)); continue; }
    made.append(makeRow(i));
    push(i);
  }
  return made;
}

function draw() {
  drawn = new Map();
  rows.replaceChildren(makeRow(0), rowsBelow(0));
  select(drawn.has(selected) ? selected : 0, false);
}

function removeBelow(i) {
  const level = tree.depth[i] + 1;
  let next = drawn.get(i).nextSibling;
  while (next && Number(next.getAttribute("aria-level")) > level) {
    const gone = next;
    next = next.nextSibling;
    if (gone.dataset.node !== undefined) drawn.delete(Number(gone.dataset.node));
    gone.remove();
  }
}

function setOpen(i, wanted) {
  if (!tree.children[i].length || open.has(i) === wanted) return;
  wanted ? open.add(i) : open.delete(i);
  const row = drawn.get(i);
  if (!row) return;
  row.setAttribute("aria-expanded", wanted);
  if (wanted) row.after(rowsBelow(i));
  else removeBelow(i); // whoever closes a node has selected it
}

function showMore(i) {
  limit.set(i, (limit.get(i) ?? CHUNK) + CHUNK);
  const first = tree.children[i][limit.get(i) - CHUNK];
  removeBelow(i);
  drawn.get(i).after(rowsBelow(i));
  select(first, true);
}

// --------------------------------------------------------------------------- opening and closing

function openLine() {
  open = new Set(tree.principal.filter(i => tree.children[i].length));
  for (const i of tree.principal) reveal(i);
  draw();
  say("");
}

function closeAll() {
  open = new Set();
  draw();
  say("");
}

function openAll() {
  const order = [...tree.parent.keys()].filter(i => tree.children[i].length);
  order.sort((a, b) => tree.visits[b] - tree.visits[a] || a - b);
  open = new Set();
  let count = 1, left = 0;
  for (const i of order) {
    const more = Math.min(tree.children[i].length, limit.get(i) ?? CHUNK);
    // A node of which the parent is closed would open unseen.
    if (count + more > MOST_ROWS || (i && !open.has(tree.parent[i]))) { left++; continue; }
    open.add(i);
    count += more;
  }
  draw();
  const others = `${thousands(left)} others open by hand`;
  say(left ? `opened the ${thousands(open.size)} most visited nodes, ${others}` : "");
}

function reveal(i) { // opens what leads to a node, and enough of its siblings
  for (let at = i; at > 0; at = tree.parent[at]) {
    const above = tree.parent[at], chunks = Math.ceil((tree.place[at] + 1) / CHUNK);
    if (tree.place[at] >= (limit.get(above) ?? CHUNK)) limit.set(above, CHUNK * chunks);
    open.add(above);
  }
}

// ---------------------------------------------------------------------------- the selected node

function select(i, focus) {
  const before = drawn.get(selected);
  if (before) { before.setAttribute("aria-selected", "false"); before.tabIndex = -1; }
  selected = i;
  const row = drawn.get(i);
  row.setAttribute("aria-selected", "true");
  row.tabIndex = 0;
  if (focus) row.focus({ preventScroll: true });
  if (focus) show(row);
  describe(i);
}

function show(row) { row.scrollIntoView({ block: "nearest", inline: "nearest" }); }

function describe(i) {
  const path = [];
  for (let at = i; at >= 0; at = tree.parent[at]) path.push(at);
  path.reverse();
  const parts = [element("h2", "", "Selected node")];
  const actions = path.slice(1).map(at => tree.action[at] ?? "?");
  parts.push(element("p", "", actions.length ? `Actions ${actions.join(" → ")}` : "The root"));
  if (path.some(at => tree.text[at] !== null)) {
    const text = element("div", "path text");
    text.dir = "auto";
    for (const at of path) {
      const kind = (at === i ? "own" : "") + (at === 0 && i ? " from" : "");
      const piece = element("bdi", kind, tree.text[at] ?? "");
      text.append(piece);
    }
    parts.push(text);
  }
  const list = element("dl");
  for (const key of tree.keys) {
    const x = tree[key][i];
    const line = element("div");
    const number = x === null ? "–" : String(x).replace("-", "−");
    line.append(element("dt", "", name.get(key)), element("dd", "", number));
    list.append(line);
  }
  parts.push(list);
  find("detail").replaceChildren(...parts);
}

// ---------------------------------------------------------------------------------------- search

function search(go) {
  const wanted = box.value.trim().toLowerCase();
  hits = [];
  if (wanted) tree.parent.forEach((_, i) => {
    const action = String(tree.action[i] ?? "");
    const same = action === wanted || `action ${action}` === wanted;
    if (same || (tree.text[i] ?? "").toLowerCase().includes(wanted)) hits.push(i);
  });
  hitSet = new Set(hits);
  hit = -1;
  for (const [i, row] of drawn) row.classList.toggle("hit", hitSet.has(i));
  const count = hits.length ? `${thousands(hits.length)} found` : "none";
  find("found").textContent = wanted ? count : "";
  if (go && hits.length) step(1);
}

function step(way) {
  if (!hits.length) return;
  hit = (hit + way + hits.length) % hits.length;
  const i = hits[hit];
  reveal(i);
  if (!drawn.has(i)) draw();
  select(i, false);
  show(drawn.get(i));
  find("found").textContent = `${thousands(hit + 1)} of ${thousands(hits.length)}`;
}

// ------------------------------------------------------------------------------- mouse and keys

rows.addEventListener("click", event => {
  const row = event.target.closest(".row");
  if (!row) return;
  if (row.dataset.rest !== undefined) { showMore(Number(row.dataset.rest)); return; }
  const i = Number(row.dataset.node);
  select(i, true);
  if (event.target.closest(".twisty")) setOpen(i, !open.has(i));
});
rows.addEventListener("dblclick", event => {
  const row = event.target.closest(".row[data-node]");
  if (row && !event.target.closest(".twisty")) {
    setOpen(Number(row.dataset.node), !open.has(Number(row.dataset.node)));
  }
});

function focusRow(row) {
  if (!row) return;
  if (row.dataset.node !== undefined) select(Number(row.dataset.node), true);
  else { row.focus({ preventScroll: true }); show(row); }
}

function far(row, way, count) {
  for (let k = 0; k < count; k++) row = row[way] ?? row;
  return row;
}

const KEYS = {
  ArrowDown: row => focusRow(row.nextSibling),
  ArrowUp: row => focusRow(row.previousSibling),
  Home: () => focusRow(rows.firstChild),
  End: () => focusRow(rows.lastChild),
  PageDown: row => focusRow(far(row, "nextSibling", 15)),
  PageUp: row => focusRow(far(row, "previousSibling", 15)),
  ArrowRight: (row, i) => {
    if (i === null || !tree.children[i].length) return;
    open.has(i) ? focusRow(row.nextSibling) : setOpen(i, true);
  },
  ArrowLeft: (row, i) => {
    if (i === null) select(Number(row.dataset.rest), true);
    else if (open.has(i) && tree.children[i].length) setOpen(i, false);
    else if (i) select(tree.parent[i], true);
  },
  Enter: (row, i) => i === null ? showMore(Number(row.dataset.rest)) : setOpen(i, !open.has(i)),
  " ": (row, i) => KEYS.Enter(row, i),
  "*": (row, i) => {
    if (i === null) return;
    for (const at of i ? shownChildren(tree.parent[i]) : [0]) setOpen(at, true);
  },
};

rows.addEventListener("keydown", event => {
  const row = event.target.closest(".row"), act = KEYS[event.key];
  if (!row || !act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act(row, row.dataset.node === undefined ? null : Number(row.dataset.node));
});
document.addEventListener("keydown", event => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  box.focus();
  box.select();
});

let waiting = 0;
box.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => search(true), 120);
});
box.addEventListener("keydown", event => {
  if (event.key === "Enter") {
    event.preventDefault();
    if (hit < 0) { clearTimeout(waiting); search(true); } else step(event.shiftKey ? -1 : 1);
  }
  if (event.key === "Escape") { box.value = ""; search(false); select(selected, true); }
});
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
find("line").addEventListener("click", openLine);
find("all").addEventListener("click", openAll);
find("none").addEventListener("click", closeAll);
find("row").addEventListener("change", event => load(Number(event.target.value)));
load(Number(find("row").value) || 0);
})();
