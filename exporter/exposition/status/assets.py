"""Style and script of the status page, inlined so that it loads no other resource."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

STYLE = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--line:#e3e6eb;--ink:#18202c;--soft:#5d6878;--faint:#8a94a3;
--cpu:#2f6fde;--dram:#8a5cd6;--gpu:#12936a;--other:#8b97a8;--platform:#8b97a8;--active:#12936a;--idle:#d9952b;
--lost:#8b97a8;--gone:#c3cad4;--good:#0f7d59;--goodbg:#e2f4ec;--bad:#b3362b;--badbg:#fbe8e6;--warn:#8c5a07;
--warnbg:#fcf1dc}
@media(prefers-color-scheme:dark){:root{--bg:#0e131b;--card:#161d28;--line:#263040;--ink:#e6ebf2;--soft:#9aa6b7;
--faint:#6f7c8e;--cpu:#6ea2ff;--dram:#b893f5;--gpu:#3ecb97;--other:#8796aa;--platform:#8796aa;--active:#3ecb97;
--idle:#efb458;--lost:#71809a;--gone:#3c485a;--good:#5fd9a8;--goodbg:#12342a;--bad:#ff9085;--badbg:#3c1f1f;
--warn:#f2c377;--warnbg:#38290f}}
*{box-sizing:border-box;margin:0}
body{background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
"Liberation Sans",sans-serif;-webkit-text-size-adjust:100%}
main,header{max-width:1180px;margin:0 auto;padding:0 24px}
header{display:flex;flex-wrap:wrap;align-items:center;gap:8px 14px;padding-top:26px;padding-bottom:18px}
header svg{width:26px;height:26px;flex:none}
h1{font-size:18px;font-weight:650;letter-spacing:-.01em}
h2{font-size:15px;font-weight:650;letter-spacing:-.005em}
h2 small,.hint{font-size:13px;font-weight:400;color:var(--soft)}
a{color:inherit}
nav{margin-left:auto;display:flex;gap:18px;font-size:13.5px}
nav a{color:var(--soft);text-decoration:none;border-bottom:1px solid transparent}
nav a:hover{color:var(--ink);border-color:currentColor}
.version{color:var(--faint);font-size:13px}
.banner{background:var(--warnbg);color:var(--warn);border-radius:10px;padding:10px 16px;margin-bottom:16px;
font-size:14px}
.grid{display:grid;gap:16px;margin-bottom:16px}
.hero{grid-template-columns:5fr 3fr 4fr}
.parts{grid-template-columns:repeat(auto-fit,minmax(200px,1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;min-width:0;
overflow:hidden}
.hero .card{display:flex;flex-direction:column}
.panel{margin-bottom:16px}
.panel>h2{margin-bottom:6px}
.label{font-size:13px;color:var(--soft);display:flex;align-items:center;gap:7px}
.big{font-size:42px;line-height:1.15;font-weight:620;letter-spacing:-.03em;font-variant-numeric:tabular-nums;
margin-top:4px}
.mid{font-size:25px;line-height:1.25;font-weight:600;letter-spacing:-.02em;font-variant-numeric:tabular-nums;
margin-top:2px}
.big small,.mid small{font-size:.55em;font-weight:500;color:var(--soft);letter-spacing:0;margin-left:.22em}
.dot{width:9px;height:9px;border-radius:3px;display:inline-block;flex:none;background:var(--other)}
.spark{display:block;width:100%;height:44px;margin-top:12px;overflow:visible}
.spark.tall{flex:1 0 58px;min-height:58px}
td .spark{width:110px;height:24px;margin:0 0 0 auto}
.spark path{vector-effect:non-scaling-stroke}
.spark .line{fill:none;stroke:var(--c);stroke-width:1.6;stroke-linejoin:round}
.spark .area{fill:var(--c);opacity:.13}
.bar{display:block;width:100%;height:12px;border-radius:6px;margin:14px 0 12px;background:var(--line)}
.meter{display:inline-block;width:54px;height:6px;border-radius:3px;background:var(--line);margin-right:8px;
vertical-align:middle}
.meter rect{fill:var(--c)}
.meter+span{display:inline-block;min-width:3.1em}
.key{list-style:none;padding:0;font-size:13px;color:var(--soft)}
.key li{display:flex;align-items:center;gap:8px;padding:1.5px 0}
.key b{margin-left:auto;color:var(--ink);font-weight:550;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin:0 -20px;padding:0 20px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-size:12.5px;font-weight:500;color:var(--faint);text-align:left;padding:4px 14px 7px 0;white-space:nowrap}
td{border-top:1px solid var(--line);padding:9px 14px 9px 0;vertical-align:middle}
th:last-child,td:last-child{padding-right:0}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.name{overflow-wrap:anywhere;min-width:150px}
.name small,td small{display:block;color:var(--faint);font-size:12.5px;overflow-wrap:anywhere}
.tag{font-size:12px;padding:1px 8px;border-radius:20px;white-space:nowrap;background:var(--line);color:var(--soft)}
.good{background:var(--goodbg);color:var(--good)}
.bad{background:var(--badbg);color:var(--bad)}
.warn{background:var(--warnbg);color:var(--warn)}
.fix{color:var(--soft)}
.fix b{font-weight:600;color:var(--ink)}
.check{margin-top:12px;display:flex;flex-wrap:wrap;gap:4px 12px;align-items:baseline;font-size:14px}
.check code,.fix code{font:13px ui-monospace,"SFMono-Regular","DejaVu Sans Mono",monospace}
.empty{padding:34px 28px}
.empty h2{font-size:21px;margin-bottom:8px}
.empty h2+p{margin-top:0}
.empty p{max-width:66ch;color:var(--soft);margin-bottom:10px}
.c-cpu{--c:var(--cpu)}.c-dram{--c:var(--dram)}.c-gpu{--c:var(--gpu)}.c-other,.c-platform{--c:var(--other)}
.c-ink{--c:var(--soft)}
.c-active{--c:var(--active)}.c-idle{--c:var(--idle)}.c-node{--c:var(--idle)}.c-lost{--c:var(--lost)}
.c-gone{--c:var(--gone)}
.c-node{opacity:.55}
.dot,.bar rect{background:var(--c);fill:var(--c)}
footer{padding-top:6px;padding-bottom:34px;font-size:13px;color:var(--faint)}
.stale{display:none}
.lost .stale{display:inline}
.lost .live{display:none}
@media(max-width:900px){.hero{grid-template-columns:1fr 1fr}.hero>:first-child{grid-column:1/-1}}
@media(max-width:640px){main,header{padding-left:14px;padding-right:14px}.hero{grid-template-columns:1fr}
.parts{grid-template-columns:1fr 1fr}.grid{gap:12px}.grid,.panel{margin-bottom:12px}.card{padding:15px 16px}
.scroll{margin:0 -16px;padding:0 16px}.wide{display:none}.big{font-size:38px}.mid{font-size:22px}
nav{margin-left:0;width:100%}.name{min-width:136px}}
"""

SCRIPT = """
"use strict";
const every = 1000 * Number(document.body.dataset.every);
async function refresh() {
  if (!document.hidden && getSelection().isCollapsed) {
    let page = null;
    try {
      const response = await fetch(location.href, {cache: "no-store"});
      if (response.ok) page = new DOMParser().parseFromString(await response.text(), "text/html");
    } catch (error) { /* the body gets the class "lost" below */ }
    if (page) document.querySelector("main").replaceWith(page.querySelector("main"));
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
