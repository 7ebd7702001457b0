// Opens dashboards in a browser as a plan says, without any server but Prometheus, and writes down what can be seen.
//
// node shoot.mjs PLAN REPORT: the plan is a list of shots {name, server, board, from, to, scrape, theme, rows, variables,
// widths, pictures}; the report has the facts of each shot by width. See states.py.
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const here = dirname(fileURLToPath(import.meta.url));
const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FONTS = '/usr/share/fonts/opentype/inter';
const AT_ONCE = 2;
const PATIENCE_MS = 90_000;
const TYPES = {
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
};
const BOOT = {
  user: { timezone: 'utc', weekStart: '', lightTheme: false, orgRole: 'Viewer' },
  settings: { buildInfo: { version: '13.2.3' }, featureToggles: {} },
  navTree: [],
};
const PAGE =
  '<!doctype html><meta charset=utf-8><script>window.__grafana_public_path__="/public/";' +
  `window.grafanaBootData=${JSON.stringify(BOOT)}</script><link rel=stylesheet href=/dist/main.css>` +
  '<body><div id=root></div><script type=module src=/dist/main.js></script>';

/** The file that Grafana's server would have sent. */
function fileFor(path) {
  if (path.startsWith('/public/fonts/inter/')) return join(FONTS, path.split('/').pop().replace('woff2', 'otf'));
  if (path.startsWith('/public/'))
    return join(here, 'node_modules/@grafana/ui/dist/public', path.slice(8).replace(/^build\//, ''));
  return join(here, path);
}

async function serve(route, board) {
  const path = new URL(route.request().url()).pathname;
  if (path === '/page') return route.fulfill({ contentType: 'text/html', body: PAGE });
  if (path === '/page/board.json') return route.fulfill({ contentType: 'application/json', body: board });
  const file = resolve(fileFor(path));
  if (!existsSync(file)) return route.fulfill({ status: 404, body: '' });
  return route.fulfill({ contentType: TYPES[extname(file)] ?? 'application/octet-stream', body: await readFile(file) });
}

/** Waits until all panels have their answers and the layout rests. */
async function settled(page) {
  const deadline = Date.now() + PATIENCE_MS;
  for (let quiet = 0, last = ''; quiet < 3; ) {
    if (Date.now() > deadline) throw new Error('the page does not come to rest');
    await page.waitForTimeout(200);
    const now = await page.evaluate(() => {
      const state = window.renderState?.() ?? 'waiting';
      return JSON.stringify([state, document.querySelectorAll('*').length, document.body.scrollHeight]);
    });
    quiet = now === last && !now.includes('waiting') ? quiet + 1 : 0;
    last = now;
  }
}

/** A picture as WebP, a third of the size of PNG, which Playwright's own function does not know. */
async function take(page, path) {
  const session = await page.context().newCDPSession(page);
  const { data } = await session.send('Page.captureScreenshot', { format: path.endsWith('.png') ? 'png' : 'webp', quality: 75 });
  await writeFile(path, Buffer.from(data, 'base64'));
}

async function shoot(browser, shot) {
  const board = await readFile(shot.board, 'utf8');
  const size = { width: shot.widths[0], height: 1000 };
  const context = await browser.newContext({ viewport: size, timezoneId: 'UTC', locale: 'en-US' });
  const found = {};
  try {
    const page = await context.newPage();
    const messages = new Set();
    page.on('pageerror', (error) => messages.add(error.message.slice(0, 400)));
    await page.route(/\/(page|dist\/.*|public\/.*|page\/board\.json)(\?|$)/, (route) => serve(route, board));
    const query = new URLSearchParams({ from: shot.from, to: shot.to, theme: shot.theme, scrape: shot.scrape });
    if (shot.rows) query.set('rows', shot.rows);
    for (const [name, values] of Object.entries(shot.variables ?? {}))
      for (const value of values) query.append(`var-${name}`, value);
    await page.goto(`${shot.server}/page?${query}`);
    for (const width of shot.widths) {
      await settled(page);
      const height = await page.evaluate(() => document.querySelector('#page')?.getBoundingClientRect().height ?? 768);
      await page.setViewportSize({ width, height: Math.max(768, Math.ceil(height)) });
      await settled(page);
      found[width] = { ...(await page.evaluate(() => window.renderFacts())), messages: [...messages] };
      const picture = shot.pictures?.[width];
      if (picture) await take(page, picture);
    }
  } catch (error) {
    for (const width of shot.widths) found[width] ??= { failed: String(error), panels: {}, queries: [], messages: [] };
  } finally {
    await context.close();
  }
  return found;
}

const [plan, report] = process.argv.slice(2);
const shots = JSON.parse(await readFile(plan, 'utf8'));
const results = {};
const flags = ['--headless', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'];
if (process.getuid?.() === 0) flags.push('--no-sandbox');
const browser = await chromium.launch({ executablePath: BROWSER, args: flags });
try {
  const waiting = [...shots];
  const work = async () => {
    for (let shot = waiting.shift(); shot; shot = waiting.shift()) {
      const began = Date.now();
      results[shot.name] = await shoot(browser, shot);
      console.error(`${shot.name} ${((Date.now() - began) / 1000).toFixed(1)} s`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
} finally {
  await browser.close();
}
await writeFile(report, JSON.stringify(results));
