// Looks at the pages of a plan (JSON on stdin, made by __main__.py) and prints what is wrong with them.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const WIDTHS = [390, 1440];
const MORE_WIDTHS = [320, 768, 1024, 1250];
const SCHEMES = ["light", "dark"];
const LOADS = 15;

const plan = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox"],
});

/** Open a page and run `look(page, findings)`; requests and errors are findings too. */
async function visit(path, options, look) {
  const findings = [];
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.origin !== plan.origin) findings.push(`a request elsewhere: ${url}`);
    else if (url.pathname !== path) findings.push(`a request of another resource: ${url.pathname}`);
  });
  page.on("pageerror", (error) => findings.push(`script: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") findings.push(`console: ${message.text()}`.replace(/'http\S*'/, (url) => `${url} elsewhere`));
  });
  const response = await page.goto(plan.origin + path, { waitUntil: "load" });
  const bytes = (await response.body()).length;
  if (path !== "/reference" && bytes > plan.most_bytes) findings.push(`${bytes} bytes`);
  await look(page, findings);
  await context.close();
  return findings;
}

/** What is cut, too wide, too small, or linked to nothing. Runs in the page. */
function layout() {
  const findings = [];
  const says = (element) => `<${element.localName}> ${element.textContent.trim().slice(0, 40)}`;
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width)
    findings.push(`the page is ${document.documentElement.scrollWidth} px wide, wider than the window of ${width} px`);
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (element.closest("thead") || !box.width || style.visibility === "hidden") continue;
    if (box.right > width + 1 && !element.closest("svg")) findings.push(`${says(element)}: wider than the window`);
    const parent = element.closest(".card")?.getBoundingClientRect();
    if (parent && box.right > parent.right + 1 && !element.closest("svg")) findings.push(`${says(element)}: wider than its card`);
    const cuts = style.overflowX !== "visible" || style.overflowY !== "visible";
    if (cuts && element.localName !== "svg" && (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1))
      findings.push(`${says(element)}: cut`);
    if (element.firstChild?.nodeType === 3 && element.textContent.trim() && parseFloat(style.fontSize) < 12)
      findings.push(`${says(element)}: text of ${style.fontSize}`);
  }
  for (const link of document.querySelectorAll('a[href^="#"]'))
    if (!document.getElementById(link.hash.slice(1))) findings.push(`${link.hash} leads nowhere`);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids)) if (ids.filter((each) => each === id).length > 1) findings.push(`two elements with the id ${id}`);
  return findings;
}

async function accessible(page, findings) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  for (const { id, impact, help, nodes } of violations)
    if (["serious", "critical"].includes(impact)) findings.push(`axe: ${id}: ${help}: ${nodes[0].html.slice(0, 90)}`);
}

const STOPS = "a[href], button:not([hidden]), summary";

/** Tab through the page: every link, button and summary is reached, and seen when it is. */
async function keyboard(page, findings) {
  const expected = await page.evaluate((stops) => {
    const found = [...document.querySelectorAll(stops)].filter((element) => element.checkVisibility());
    found.forEach((element, number) => { element.dataset.stop = number; });
    return found.length;
  }, STOPS);
  const reached = new Set();
  await page.evaluate(() => { document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0); });
  for (let press = 0; press <= expected; press += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const focused = document.activeElement, box = focused.getBoundingClientRect();
      const seen = box.bottom > 0 && box.top < innerHeight && getComputedStyle(focused).outlineStyle !== "none";
      return focused === document.body ? null : { stop: focused.dataset.stop, seen, what: focused.textContent.slice(0, 30) };
    });
    if (!at) break;
    if (!at.seen) findings.push(`keyboard: the focus on "${at.what}" is not visible`);
    reached.add(at.stop);
  }
  if (reached.size < expected) findings.push(`keyboard: Tab reaches ${reached.size} of ${expected} links and buttons`);
}

/** What is opened and focused survives the page's own refresh, and it can be paused. */
async function refresh(page, findings) {
  const summary = page.locator("summary").first();
  await summary.focus();
  await page.keyboard.press("Enter");
  await page.evaluate(() => { document.querySelector("main").dataset.old = "1"; });
  await page.waitForFunction(() => !document.querySelector("main").dataset.old, null, { timeout: 60_000 });
  const kept = await page.evaluate(() => ({
    open: document.querySelector("details").open,
    focused: document.activeElement === document.querySelector("summary"),
  }));
  if (!kept.open) findings.push("refresh: what was opened is closed");
  if (!kept.focused) findings.push("refresh: the focus is lost");
  await page.getByRole("button", { name: "Pause" }).press("Enter");
  if (!(await page.getByRole("button", { name: "Continue" }).count())) findings.push("refresh: it cannot be paused");
}

/** Everything is there without a script, opens, and explains itself. */
async function scriptless(page, findings) {
  for (const heading of await page.locator("h2").all())
    if (!(await heading.isVisible())) findings.push(`${await heading.textContent()}: not visible without JavaScript`);
  const summary = page.locator("summary").first();
  if (await summary.count()) {
    await summary.press("Enter");
    if (!(await page.locator("details").first().locator("p, dl").first().isVisible()))
      findings.push("what is folded does not open without JavaScript");
  }
  if (await page.locator("footer").count() && !(await page.locator("noscript").first().isVisible()))
    findings.push("no word on reloading without JavaScript");
}

async function examine(path, { schemes = SCHEMES, widths = [...WIDTHS, ...MORE_WIDTHS], pictures = "" } = {}) {
  const found = [];
  const note = (where, findings) => found.push(...[...new Set(findings)].map((finding) => `${path}, ${where}: ${finding}`));
  for (const colorScheme of schemes)
    note(colorScheme, await visit(path, { viewport: { width: 390, height: 900 }, colorScheme }, async (page, findings) => {
      if (await page.getByRole("button", { name: "Pause" }).count()) await pause(page);
      for (const width of widths) {
        await page.setViewportSize({ width, height: 900 });
        findings.push(...(await page.evaluate(layout)).map((finding) => `${width} px: ${finding}`));
        if (!WIDTHS.includes(width)) continue;
        await accessible(page, findings);
        if (pictures) await page.screenshot({ path: `${pictures}/${path.slice(1)}-${width}-${colorScheme}.png`, fullPage: true });
        if (colorScheme === "light") await keyboard(page, findings);
      }
    }));
  note("no script", await visit(path, { viewport: { width: 390, height: 900 }, javaScriptEnabled: false }, scriptless));
  if (path === "/busy") note("refresh", await visit(path, { viewport: { width: 1440, height: 900 } }, refresh));
  return found;
}

/** Stop the page's refresh without moving the focus. */
async function pause(page) {
  await page.evaluate(() => { const button = document.querySelector("button"); if (!button.hidden) button.click(); });
}

const median = (all) => all.sort((a, b) => a - b)[all.length >> 1].toFixed(0);

/** Milliseconds from the navigation to the first contentful paint. */
const painted = (page) => page.evaluate(() => new Promise((resolve) => {
  new PerformanceObserver((list) => {
    const entry = list.getEntriesByName("first-contentful-paint")[0];
    if (entry) resolve(entry.startTime);
  }).observe({ type: "paint", buffered: true });
}));

/**
 * Print for each page, loaded in turns: bytes, time to the first contentful paint in a new tab and once more in the
 * same tab, and the renderer's CPU time for the first.
 */
async function paint(paths) {
  const seen = new Map(paths.map((path) => [path, { bytes: 0, wall: [], again: [], cpu: [] }]));
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  for (let load = 0; load < LOADS; load += 1)
    for (const [path, times] of seen) {
      const page = await context.newPage();
      const traced = load % 3 === 2; // tracing itself takes time
      if (traced) await browser.startTracing(page, { categories: ["toplevel", "loading", "blink.user_timing", "devtools.timeline"] });
      const response = await page.goto(plan.origin + path);
      times.bytes = (await response.body()).length;
      const wall = await painted(page);
      if (traced) times.cpu.push(renderer(JSON.parse(await browser.stopTracing()).traceEvents));
      else {
        times.wall.push(wall);
        await page.goto(plan.origin + path);
        times.again.push(await painted(page));
      }
      await page.close();
    }
  await context.close();
  for (const [path, { bytes, wall, again, cpu }] of seen) {
    const [new_tab, same_tab] = [wall, again].map((all) => `median ${median(all)} ms (${all[0].toFixed(0)} to ${all.at(-1).toFixed(0)})`);
    console.log(
      `${path}: ${bytes} bytes; first paint in a new tab ${new_tab}, in the same tab ${same_tab}; ` +
      `CPU time of the renderer's main thread until the first ${median(cpu)} ms (median)`,
    );
  }
}

/** CPU milliseconds of the renderer's main thread from the start of the navigation to the first contentful paint. */
function renderer(events) {
  const { pid, tid, ts } = events.findLast((event) => event.name === "firstContentfulPaint");
  const start = events.findLast((event) => event.name === "navigationStart" && event.pid === pid && event.ts < ts);
  const tasks = events.filter((event) => event.pid === pid && event.tid === tid && event.name.endsWith("RunTask"));
  const counted = tasks.filter((event) => event.ts >= start.ts && event.ts <= ts && event.name === tasks[0].name);
  return counted.reduce((sum, event) => sum + (event.tdur ?? 0), 0) / 1000;
}

if (plan.only_paint) plan.clean = plan.planted = [];
let failed = false;
for (const path of plan.clean) {
  const found = await examine(path, { pictures: plan.pictures });
  console.log(`${path}: ${found.length ? `${found.length} findings` : "ok"}`);
  for (const line of found) console.log(`  ${line}`);
  failed ||= found.length > 0;
}
for (const [path, [name, word]] of Object.entries(plan.planted)) {
  const found = (await examine(path, { schemes: ["light"], widths: [390] })).filter((finding) => finding.includes(word));
  console.log(`planted, ${name}: ${found.length ? `found: ${found[0].slice(0, 140)}` : "NOT FOUND"}`);
  failed ||= found.length === 0;
}
await paint(plan.live);
await browser.close();
process.exit(failed ? 1 : 0);
