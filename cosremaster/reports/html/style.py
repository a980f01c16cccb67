"""How the page looks: light, dark, on a phone, and on paper."""

STYLE = """
:root{--paper:#fff;--ink:#1b1f24;--soft:#59626d;--line:#d5dae0;--card:#f5f7f9;--good:#12703a;--bad:#b3261e;
--system:#7d8590;--volume:#b9c0c8;--boot:#d9480f;--layer:#1c6fd1;--file:#8fb7e8;--partition:#8a4fc7;--gpt:#b88700;
--gap:#e9ecef;--on:#fff;--accent:#c2255c}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e6e9ed;--soft:#9aa4b0;--line:#343b44;--card:#1d2127;
--good:#5fd08d;--bad:#ff8a80;--system:#6b747f;--volume:#4c545e;--boot:#e8590c;--layer:#3a86e0;--file:#2f5583;
--partition:#9a63d6;--gpt:#b88700;--gap:#262b32;--accent:#ff6b9d}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1.2rem;background:var(--paper);color:var(--ink);
font:15px/1.45 system-ui,"DejaVu Sans",sans-serif}
h1{font-size:1.6rem;margin:.2rem 0 .8rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:0 0 .7rem}
h3{font-size:.9rem;margin:.8rem 0 .3rem;font-weight:600}
section{border-top:1px solid var(--line);padding:1.1rem 0}p{margin:.3rem 0 .7rem}
.note,small,footer,caption{color:var(--soft);font-size:.85rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.6rem;margin:0 0 1.2rem}
.facts div{background:var(--card);border-radius:.5rem;padding:.5rem .7rem}
dt{color:var(--soft);font-size:.8rem}dd{margin:0;overflow-wrap:anywhere}
.bar{position:relative;height:3.4rem}
.bar b{position:absolute;top:0;bottom:0;overflow:hidden;border-right:1px solid var(--paper);border-radius:2px;
font-weight:400}
.bar span{display:block;padding:.25rem .35rem;font-size:.75rem;line-height:1.2;white-space:nowrap;overflow:hidden;
text-overflow:ellipsis;color:var(--ink)}
.bar .layer span,.bar .boot span,.bar .partition span,.bar .gpt span,.bar .system span{color:var(--on)}
.system{background:var(--system)}.volume{background:var(--volume)}.boot{background:var(--boot)}
.layer{background:var(--layer)}.file{background:var(--file)}.partition{background:var(--partition)}
.gpt{background:var(--gpt)}.gap{background:var(--gap)}
.lane{margin-top:.25rem;line-height:1.1}.lane i{display:block;height:.3rem;background:var(--soft);border-radius:.15rem}
.lane small{display:block;font-size:.72rem}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1rem;list-style:none;padding:0;margin:.9rem 0 .3rem;font-size:.85rem}
.legend i,td i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
details{margin:.6rem 0}summary{cursor:pointer;font-weight:600}
.wide{overflow-x:auto;margin-top:.5rem}table{border-collapse:collapse;width:100%;font-size:.85rem}
caption{text-align:left;padding-bottom:.3rem}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td{font-variant-numeric:tabular-nums}td:first-child{overflow-wrap:anywhere;min-width:9rem}
td em{font-style:normal;color:var(--accent)}
.layers,.checks,.paths{list-style:none;padding:0;margin:.4rem 0}
.layers li{margin:.7rem 0}.layers div:first-child{padding-left:.6rem;border-left:3px solid var(--layer);
margin-bottom:.25rem}.layers p{padding-bottom:.1rem}
.layers strong{overflow-wrap:anywhere}.layers p{margin:.1rem 0 0;font-size:.88rem}
mark{background:var(--layer);color:var(--on);border-radius:.8em;padding:.05em .6em;font-size:.78rem}
.meter{position:relative;height:.75rem;background:var(--card);border-radius:.2rem;overflow:hidden}
.meter i{position:absolute;left:0;top:0;bottom:0;min-width:2px}.meter .plain{background:var(--file)}
.meter .packed{background:var(--layer)}
.map{position:relative;aspect-ratio:1000/640;background:var(--gap);border-radius:.3rem;overflow:hidden}
.map b{position:absolute;overflow:hidden;font-weight:400;font-size:11px;line-height:1.25;padding:1px 3px;
white-space:nowrap;text-overflow:ellipsis;background:hsl(var(--hue) 45% var(--light));
border:1px solid hsl(var(--hue) 35% var(--edge));--light:82%;--edge:62%;color:#14171b}
.map .open{--light:90%;font-weight:600}
.map .others{font-style:italic;--light:86%}
.map .changed{outline:2px solid var(--accent);outline-offset:-2px;font-weight:700}
.h0{--hue:212}.h1{--hue:28}.h2{--hue:145}.h3{--hue:275}.h4{--hue:350}.h5{--hue:180}.h6{--hue:55}.h7{--hue:240}
@media (prefers-color-scheme:dark){.map b{--light:30%;--edge:46%;color:#eef1f4}.map .open{--light:21%}
.map .others{--light:26%}}
code{font:.85rem/1.35 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}code span{color:var(--soft)}
.mark{font:700 .9rem ui-monospace,"DejaVu Sans Mono",monospace;color:var(--accent)}
.checks li,.paths li{padding:.12rem 0;overflow-wrap:anywhere}
.lines{background:var(--card);border-radius:.3rem;padding:.3rem .6rem;margin:.2rem 0 .5rem}
.lines code{display:block;white-space:pre-wrap}.lines .plus{color:var(--good)}.lines .minus{color:var(--bad)}
.lines .spot{color:var(--soft)}
.checks i{font-style:normal;font-weight:700;margin-right:.5em}
.checks li{padding-left:1.4em;text-indent:-1.4em}
.ok i{color:var(--good)}.note i{color:var(--soft)}.fail i,.fail span{color:var(--bad)}
.verdict{border-left:.3rem solid var(--good);background:var(--card);padding:.6rem .8rem;border-radius:.2rem}
.verdict strong{color:var(--good)}.verdict.bad{border-color:var(--bad)}.verdict.bad strong{color:var(--bad)}
@media (max-width:40rem){body{padding:.8rem}.map{aspect-ratio:390/860}.facts{grid-template-columns:1fr 1fr}
.bar{height:4.2rem}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--card:#f4f4f4;--good:#12703a;--bad:#b3261e;
--volume:#b9c0c8;--file:#8fb7e8;--gap:#e9ecef;--accent:#c2255c;color-scheme:light}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{max-width:none;padding:0;font-size:10pt}.map b{--light:82%;--edge:62%;color:#000;font-size:7pt}
.map .open{--light:90%}.map .others{--light:86%}.track,.map,.layers li,tr{break-inside:avoid}
h2,h3,section>p{break-after:avoid}
.wide{overflow:visible}
details::details-content{content-visibility:visible;block-size:auto}}
@page{margin:14mm}
"""
