"""Style sheet of the report, without images, fonts or imports.

It names colors once for light and once for dark; on paper it is light and all details are open.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1e21; --soft: #5a6068; --line: #d9dce1;
  --wash: #f4f6f8; --mark: #b34700; --link: #005a9e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8eb; --soft: #a3abb5;
  --line: #343a42; --wash: #1e2329; --mark: #ff9a4d; --link: #7cc0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h4 { font-size: .95rem; margin: 0 0 .4rem; }
p { max-width: 44rem; margin: .6rem 0; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link);
  outline-offset: 2px; }
.subtitle, figcaption, caption, .key { color: var(--soft); }
.subtitle { font-size: 1.05rem; }
nav ol { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 0; margin: .8rem 0 0;
  list-style-position: inside; }
figure { margin: 1.4rem 0; }
/* Figures are drawn on white, so they keep a white card in the dark. */
figure > svg { display: block; width: 100%; height: auto; max-height: 85vh; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figcaption, caption { font-size: .9rem; text-align: left; padding: .45rem 0; }
.scroll { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; font-size: .93rem; }
.scroll > table { min-width: 60%; }
th, td { padding: .32rem .9rem .32rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.example { margin: 1.4rem 0; }
.prompt, .card { background: var(--wash); border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem 1rem; }
.cards { display: grid; gap: .8rem; margin-top: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .7rem 0 0; font-size: .87rem; }
dl div { display: flex; gap: .4rem; }
dt { color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
details { margin: .2rem 0; }
details.preformatted, details.settings { margin: 1rem 0; border: 1px solid var(--line);
  border-radius: 6px; padding: .6rem 1rem; }
summary { cursor: pointer; }
details.preformatted > summary, details.settings > summary { font-weight: 600; }
.key { font-size: .85rem; }
pre { font: .82rem/1.4 ui-monospace, "DejaVu Sans Mono", monospace; margin: 0; }
.settings th { font-weight: 400; color: var(--soft); }
.settings td { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .87rem;
  overflow-wrap: anywhere; }
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --wash: #fff; --mark: #b34700;
    --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  figure, tr, .card { break-inside: avoid; }
  h2, caption { break-after: avoid; }
  .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
