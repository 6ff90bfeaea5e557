"""How the HTML report looks: one style sheet, light and dark, for a screen and for paper."""

STYLE = """
:root { --ink: #1c2430; --dim: #5c6675; --line: #d8dde5; --page: #ffffff; --card: #f5f7fa;
  --inactive: #8a94a3; --active: #2f6fb7; --unstable: #d9822b; --undecided: #b3392f;
  --kept: #2d7d5a; --gone: #c3cad4; --negligible: #e3cf9a; --merged: #7f9fc9; --folded: #b7a3cf; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --dim: #98a3b3; --line: #39424f; --page: #161b22; --card: #1f2630;
    --gone: #4a5361; } }
body { color: var(--ink); background: var(--page); font: 15px/1.5 system-ui, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } .lead { color: var(--dim); }
h2 { font-size: 1.1rem; border-bottom: 1px solid var(--line); margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0; overflow-wrap: anywhere; }
.note, small, footer { color: var(--dim); } .note { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; }
.tile { background: var(--card); border-radius: .5rem; padding: .8rem; }
.tile b, .tile span { display: block; } .tile .to { display: inline; color: var(--dim); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .3rem 0;
  list-style: none; }
.legend i { display: inline-block; width: .9rem; height: .9rem; border-radius: .2rem;
  margin-right: .4rem; vertical-align: -.1rem; }
.layer { display: flex; gap: 1rem; align-items: center; margin: .4rem 0; }
.layer .name { flex: 0 0 9rem; line-height: 1.2; } .layer .bars { flex: 1; min-width: 0; }
.bar { display: flex; gap: 1px; height: 1.2rem; margin: 2px 0; border-radius: .2rem;
  overflow: hidden; }
.part { flex: 1 1 0; min-width: 2px; overflow: hidden; color: #fff; font-size: .75rem;
  line-height: 1.2rem; text-align: center; }
.stably_inactive { background: var(--inactive); } .stably_active { background: var(--active); }
.unstable { background: var(--unstable); } .undecided { background: var(--undecided); }
.kept { background: var(--kept); } .removed { background: var(--gone); color: var(--ink); }
.negligible { background: var(--negligible); color: #1c2430; }
.merged { background: var(--merged); } .folded { background: var(--folded); }
.times .bars { display: flex; align-items: center; gap: .6rem; }
.times .bar { background: var(--active); height: .7rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0;
  vertical-align: top; overflow-wrap: anywhere; }
footer { margin: 2rem 0; border-top: 1px solid var(--line); padding-top: .6rem; }
code { overflow-wrap: anywhere; }
@media print { body { max-width: none; } section { break-inside: avoid; } }
"""
