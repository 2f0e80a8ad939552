"""How the page of a search tree looks, on top of the report's style sheet."""

TREE_STYLE = """
body { max-width: 100rem; }
header .subtitle { margin: 0 0 1rem; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.1rem; align-items: center; }
.controls label[hidden] { display: none; }
.controls select { max-width: 26rem; }
.controls input { width: 15rem; }
.controls input, .controls select, button { font: inherit; font-size: .93rem; color: var(--ink);
  background: var(--paper); border: 1px solid var(--line); border-radius: 6px;
  padding: .28rem .6rem; }
button { cursor: pointer; }
button:hover { background: var(--wash); }
.buttons { display: flex; gap: .4rem; }
#found { color: var(--soft); font-size: .9rem; font-variant-numeric: tabular-nums;
  min-width: 5rem; }
.picture { display: block; image-rendering: pixelated; border-radius: 4px; margin: .8rem 0; }
.picture[hidden] { display: none; }
.summary { max-width: none; color: var(--soft); font-size: .93rem; margin: .8rem 0;
  font-variant-numeric: tabular-nums; }
.room { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; align-items: start; }
@media (min-width: 80rem) { .room { grid-template-columns: minmax(0, 1fr) 19rem; } }
.frame { overflow: auto; max-height: calc(100vh - 8rem); border: 1px solid var(--line);
  border-radius: 6px; }
[role=treegrid] { --label: calc(var(--said, 9rem) + var(--deepest, 8) * .95rem);
  --visits: 7.5rem; --width: 4.5rem; font-size: .9rem; line-height: 1.35;
  min-width: calc(var(--label) + var(--visits) + var(--numbers, 6) * (var(--width) + .4rem)
    + 2rem); }
.row { display: grid; grid-template-columns: minmax(var(--label), 1fr) var(--visits)
  repeat(var(--numbers, 6), var(--width)); align-items: center; gap: 0 .4rem;
  padding: .22rem .8rem .22rem .4rem; border-bottom: 1px solid var(--line);
  scroll-margin-top: 2rem; }
#rows .row { content-visibility: auto; contain-intrinsic-size: auto 1.75rem; }
#rows .row { cursor: default; }
#rows .row:hover { background: var(--wash); }
#rows .row[aria-selected=true] { background: var(--wash); box-shadow: inset 3px 0 var(--link); }
.row:focus { outline: none; }
.row:focus-visible { outline: 2px solid var(--link); outline-offset: -2px; }
.head { position: sticky; top: 0; z-index: 1; background: var(--paper); color: var(--soft);
  font-size: .8rem; border-bottom: 1px solid var(--soft); }
.head > :first-child { padding-left: 1.4rem; }
.row .number { white-space: nowrap; }
.row .none { color: var(--soft); }
.node { display: flex; align-items: baseline; gap: .4rem; min-width: 0;
  padding-left: calc(var(--depth, 0) * .95rem); }
.twisty { flex: none; width: 1rem; text-align: center; color: var(--soft); cursor: pointer;
  user-select: none; }
.twisty::before { content: ""; }
[aria-expanded=false] > .node > .twisty::before { content: "\\25b8"; }
[aria-expanded=true] > .node > .twisty::before { content: "\\25be"; }
.action { flex: none; min-width: 1.5rem; text-align: center; padding: 0 .3rem; border-radius: 4px;
  background: var(--wash); border: 1px solid var(--line); color: var(--soft); font-size: .8rem;
  font-variant-numeric: tabular-nums; }
.said { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0;
  flex: 0 1 auto; }
.mild, .deep { color: var(--soft); font-size: .83rem; flex: none; white-space: nowrap; }
.principal .said { color: var(--mark); font-weight: 600; }
.principal .action { color: var(--mark); border-color: var(--mark); }
.hit .said, .hit .action { background: color-mix(in srgb, var(--mark) 18%, transparent); }
.bar { display: flex; align-items: center; justify-content: flex-end; gap: .5rem; }
.bar i { flex: 1; height: .5rem; border-radius: 3px; background: linear-gradient(to right,
  var(--link) calc(var(--share) * 100%), var(--line) 0); print-color-adjust: exact; }
.bar span { min-width: 3.2rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.rest { color: var(--link); cursor: pointer; }
#detail { border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem;
  font-size: .9rem; max-height: calc(100vh - 8rem); overflow: auto; }
#detail:empty { display: none; }
#detail h2 { font-size: 1rem; margin: 0 0 .4rem; padding: 0; border: 0; }
#detail p { margin: .3rem 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
#detail .path { max-height: 40vh; overflow: auto; background: var(--wash); border-radius: 6px;
  padding: .5rem .7rem; margin: .6rem 0; color: var(--soft); }
#detail .path .from { display: block; padding-bottom: .4rem; margin-bottom: .4rem;
  border-bottom: 1px solid var(--line); }
#detail .path .own { color: var(--ink); font-weight: 600; }
#detail dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; }
#detail dl div { display: contents; }
#detail dd { text-align: right; }
.meanings { display: grid; gap: .4rem; font-size: .9rem; }
.meanings div { display: grid; grid-template-columns: 8rem 1fr; gap: .8rem; }
kbd { font: .8rem ui-monospace, "DejaVu Sans Mono", monospace; border: 1px solid var(--line);
  border-radius: 4px; padding: 0 .3rem; background: var(--wash); }
noscript pre { overflow-x: auto; font-size: .8rem; }
@media (max-width: 40rem) { body { padding: 1rem .7rem 3rem; }
  [role=treegrid] { --visits: 6.5rem; --width: 4rem; }
  .meanings div { grid-template-columns: 1fr; gap: 0; } }
@media print {
  .controls, .twisty { display: none; }
  .frame, #detail { max-height: none; overflow: visible; border: 0; }
  .room { display: block; }
  [role=treegrid] { min-width: 0; font-size: 7.5pt; }
  .row { grid-template-columns: minmax(0, 1fr) 5rem repeat(var(--numbers, 6), 2.7rem);
    gap: 0 .3rem; break-inside: avoid; padding: .1rem .3rem; }
  .bar span { min-width: 2.4rem; }
  .head { font-size: 6.5pt; }
  .action { font-size: 6.5pt; padding: 0 .15rem; }
  .said { white-space: normal; overflow: visible; }
  .head { position: static; }
  #detail { display: none; }
}
@media (forced-colors: active) { .bar i { border: 1px solid; }
  #rows .row[aria-selected=true] { outline: 2px solid; } }
"""
