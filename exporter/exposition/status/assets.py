"""Style and script of the status page, inlined so that it loads no other resource."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

from .markup import LABELS

STYLE = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--line:#e3e6eb;--ink:#18202c;--soft:#566172;
--cpu:#2f6fde;--dram:#8a5cd6;--gpu:#12936a;--other:#8b97a8;--platform:#8b97a8;--active:#2f9c78;--idle:#e0982c;
--node:#eecb94;--lost:#8b97a8;--named:#aab4c2;--gone:#c3cad4;--good:#0b6b4b;--goodbg:#e2f4ec;--bad:#a5281e;
--badbg:#fbe8e6;--warn:#7d4f03;--warnbg:#fcf1dc}
@media(prefers-color-scheme:dark){:root{--bg:#0e131b;--card:#161d28;--line:#263040;--ink:#e6ebf2;--soft:#a3afbf;
--cpu:#6ea2ff;--dram:#b893f5;--gpu:#3ecb97;--other:#8796aa;--platform:#8796aa;--active:#3aae85;--idle:#efa93d;
--node:#80602f;--lost:#71809a;--named:#566379;--gone:#3c485a;--good:#5fd9a8;--goodbg:#12342a;--bad:#ff9a90;
--badbg:#3c1f1f;--warn:#f2c377;--warnbg:#38290f}}
*{box-sizing:border-box;margin:0}
body{background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
"Liberation Sans",sans-serif;-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
main,header{max-width:1320px;margin:0 auto;padding:0 24px}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 14px;padding-top:24px;padding-bottom:16px}
header svg{width:26px;height:26px;flex:none;align-self:center}
h1{font-size:19px;font-weight:650;letter-spacing:-.01em}
h2{font-size:15px;font-weight:650}
h2 small,.hint{font-size:13px;font-weight:400;color:var(--soft)}
a{color:inherit}
a:focus-visible,summary:focus-visible,button:focus-visible{outline:2px solid var(--cpu);outline-offset:2px}
nav{margin-left:auto;display:flex;flex-wrap:wrap;align-items:baseline;gap:6px 18px;font-size:14px}
nav a,nav button{color:var(--soft)}
nav button{font:inherit;background:none;border:1px solid var(--line);border-radius:6px;padding:0 10px;cursor:pointer}
.term{text-decoration:underline dotted;text-decoration-thickness:1px;text-underline-offset:3px}
.version{color:var(--soft);font-size:13px}
.banner{background:var(--warnbg);color:var(--warn);border-radius:10px;padding:10px 16px;margin-bottom:16px;
font-size:14px}
.grid{display:grid;gap:16px;margin-bottom:16px}
.hero{grid-template-columns:5fr 4fr 5fr}
.parts{grid-template-columns:repeat(auto-fit,minmax(200px,1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 20px;min-width:0}
.hero .card{display:flex;flex-direction:column}
.panel{margin-bottom:16px}
.first .panel{content-visibility:auto;contain-intrinsic-size:auto 480px}
.panel>h2{margin-bottom:6px}
.label{font-size:13px;font-weight:400;color:var(--soft);display:flex;flex-wrap:wrap;align-items:center;gap:2px 7px}
.big,.mid{font-size:42px;line-height:1.15;font-weight:620;letter-spacing:-.03em;font-variant-numeric:tabular-nums;
margin-top:4px}
.mid{font-size:25px;letter-spacing:-.02em}
.big small,.mid small{font-size:.55em;font-weight:500;color:var(--soft);letter-spacing:0;margin-left:.22em}
.dot{width:9px;height:9px;border-radius:3px;display:inline-block;flex:none;background:var(--c)}
.spark{display:block;width:100%;height:40px;margin-top:10px;overflow:hidden}
.spark.tall{flex:1 0 52px;min-height:52px}
.spark path{fill:var(--c);fill-opacity:.3;stroke:var(--c);stroke-width:1.5;vector-effect:non-scaling-stroke}
.spark .c-idle{fill-opacity:.75}
.bar{display:block;width:100%;height:12px;border-radius:6px;margin:10px 0 8px;background:var(--line)}
.meter{float:left;width:54px;height:6px;border-radius:3px;background:var(--line);margin:8px 8px 0 10px}
.bar rect,.meter rect{fill:var(--c);height:100%}
.key{list-style:none;padding:0;font-size:13px;color:var(--soft)}
.key li{display:flex;align-items:baseline;gap:8px;padding:1px 0}
.key b{margin-left:auto;color:var(--ink);font-weight:550;white-space:nowrap;font-variant-numeric:tabular-nums}
small{display:block;color:var(--soft);font-size:12.5px;font-weight:400}
h2 small,.big small,.mid small{display:inline}
table{border-collapse:collapse;width:100%;font-size:14px}
thead th{font-size:12.5px;font-weight:500;color:var(--soft);padding:2px 14px 6px 0;
vertical-align:bottom}
thead small{font-size:12px}
tbody th{font-weight:500;text-align:left;min-width:150px}
tbody th,td{border-top:1px solid var(--line);padding:7px 14px 7px 0;vertical-align:top}
tr>:last-child{padding-right:0}
tr.foot>*{color:var(--soft)}
thead th,td{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
thead th:first-child,thead .t,.t{text-align:left;white-space:normal}
.chart{width:190px;text-align:left}
.chart .spark{height:26px;margin:0}
.name{min-width:170px}
.name div+div{margin-top:4px}
.time{white-space:nowrap}
.pid{color:var(--soft);font-weight:400;font-variant-numeric:tabular-nums}
.mig{padding-left:15px;font-weight:400}
.tag{font-size:12px;font-weight:400;padding:1px 8px;border-radius:20px;white-space:nowrap;display:inline-block;
line-height:1.4;background:var(--line);color:var(--ink)}
.good{background:var(--goodbg);color:var(--good)}
.bad{background:var(--badbg);color:var(--bad)}
.warn{background:var(--warnbg);color:var(--warn)}
.check{margin-top:auto;padding-top:10px;display:flex;flex-wrap:wrap;gap:2px 10px;align-items:baseline}
code{font:13px ui-monospace,"SFMono-Regular","DejaVu Sans Mono",monospace}
.empty{padding:28px}
.empty h2{font-size:20px;margin-bottom:8px}
.empty p{max-width:66ch;color:var(--soft);margin-bottom:10px}
.up{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:6px;margin-bottom:6px}
details{margin-top:6px;font-size:14px}
summary{cursor:pointer;width:fit-content}
details>dl,details>p{margin-top:6px;max-width:90ch}
th details{font-size:12.5px;font-weight:400;color:var(--soft);margin:0}
th details p{margin:0}
th summary{font-size:14px;font-weight:500;color:var(--ink)}
dl{font-size:14px}
dt{font-weight:550}
dd{color:var(--soft);margin:0 0 8px}
.words dl{columns:3 320px;column-gap:32px}
.words dt{break-after:avoid}
.words dd{break-inside:avoid;font-size:13px}
dt:target{background:var(--warnbg);color:var(--warn)}
.reference dd code{white-space:pre-line}
thead th,td,.reference th{overflow-wrap:break-word}
td.name{overflow-wrap:anywhere}
footer{padding-bottom:30px;font-size:13px;color:var(--soft)}
.c-cpu{--c:var(--cpu)}.c-dram{--c:var(--dram)}.c-gpu{--c:var(--gpu)}.c-other{--c:var(--other)}
.c-platform{--c:var(--platform)}.c-active{--c:var(--active)}.c-idle{--c:var(--idle)}.c-node{--c:var(--node)}
.c-lost{--c:var(--lost)}.c-named{--c:var(--named)}.c-gone{--c:var(--gone)}
.stale{display:none;color:var(--bad)}
.lost .stale{display:inline}
.lost .live{display:none}
@media(max-width:900px){.hero{grid-template-columns:1fr 1fr}.hero>:first-child{grid-column:1/-1}}
@media(max-width:640px){main,header{padding-left:12px;padding-right:12px}.hero{grid-template-columns:1fr}
.parts{grid-template-columns:1fr 1fr}.grid{gap:12px}.grid,.panel{margin-bottom:12px}.card{padding:14px}
.big{font-size:38px}.mid{font-size:22px}nav{margin-left:0;width:100%}}
"""

_STACKED = """
.stack{display:block}
.stack thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stack tbody{display:block}
.stack tr{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:1px 18px;padding:8px 0;
border-top:1px solid var(--line)}
.stack tbody th,.stack td{display:block;border:0;padding:0;min-width:0;white-space:normal}
.stack th,.stack .name,.stack .full{grid-column:1/-1}
.stack .none{display:none}
.stack td.chart{width:auto}
.stack td::before{display:block}
.stack .meter{display:none}
"""
STYLE += "td::before{display:none;float:left;font-size:13px;color:var(--soft);margin-right:8px}"
STYLE += "\n".join([f'td.{css}::before{{content:"{label}"}}' for css, label in LABELS.items()])
STYLE += f"@media(max-width:860px){{{_STACKED}}}"
STYLE += f"@media(max-width:1240px){{{_STACKED.replace('.stack', '.wide')}}}"

SCRIPT = """
"use strict";
const every = 1000 * Number(document.body.dataset.every), button = document.querySelector("button");
let paused = false;
button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Continue" : "Pause";
});
const name = (element) => element.id || element.parentNode.id || element.textContent + element.href;
function show(main) {
  const old = document.querySelector("main"), focused = old.contains(document.activeElement) && document.activeElement;
  for (const open of old.querySelectorAll("details[open]")) {
    const same = main.querySelector("#" + CSS.escape(open.id));
    if (same) same.open = true;
  }
  document.body.classList.remove("first"); // a new section above the window has another height until it is drawn
  old.replaceWith(main);
  if (focused) [...main.querySelectorAll("a, summary")].find((element) => name(element) === name(focused))
    ?.focus({preventScroll: true});
}
async function refresh() {
  if (!document.hidden && !paused && getSelection().isCollapsed) {
    let page = null;
    try {
      const response = await fetch(location.pathname, {cache: "no-store"});
      if (response.ok) page = new DOMParser().parseFromString(await response.text(), "text/html");
    } catch (error) { /* the body gets the class "lost" below */ }
    if (page) show(page.querySelector("main"));
    document.body.classList.toggle("lost", !page);
  }
  setTimeout(refresh, every);
}
setTimeout(refresh, every);
"""


def content_security_policy() -> bytes:
    """Return the policy that allows this style, this script and nothing else."""
    style, script = (b64encode(sha256(text.encode()).digest()).decode() for text in (STYLE, SCRIPT))
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ).encode()
