// What can be seen of the page: texts that are cut, too small, or outside of their panel; and what panels reported.
import { seen } from './panels';
import { asked } from './prometheus';

const over = (element: Element) => element.scrollWidth > element.clientWidth + 1;
const textIn = (element: Element) => (element.textContent ?? '').trim().slice(0, 80);

function layout(panel: Element) {
  const inside = (query: string) => [...panel.querySelectorAll(query)];
  const leaves = inside('span, div, a').filter((element) => !element.children.length && textIn(element));
  return {
    cutTitles: inside('h2, h2 *').filter(over).map(textIn).slice(0, 1),
    cutHeaders: inside('[role=columnheader]').filter(over).map(textIn),
    cutCells: inside('[role=gridcell]').filter(over).map(textIn),
    wide: inside('[role=grid]').filter(over).length > 0,
    small: leaves
      .map((element) => ({ text: textIn(element), size: parseFloat(getComputedStyle(element).fontSize) }))
      .filter((each) => each.size < 10),
  };
}

/** Whether all panels have their answers, or the page failed. */
export function state(failed: string | undefined): string {
  if (failed) return 'failed';
  const states = Object.values(seen).map((each) => each.state);
  const waiting = asked.some((each) => each.ms === undefined);
  return states.length && !waiting && states.every((each) => each === 'Done' || each === 'Error') ? 'done' : 'waiting';
}

export function facts(failed: string | undefined, panelLinks: Record<string, any[]>) {
  const panels: Record<string, any> = {};
  for (const element of document.querySelectorAll<HTMLElement>('[data-viz-panel-key]')) {
    const key = element.dataset.vizPanelKey!;
    const found = Object.entries(seen).find(([id]) => `panel-${id}` === key);
    if (found) panels[found[0]] = { ...found[1], ...layout(element), panelLinks: panelLinks[found[0]] ?? [] };
  }
  return { failed, panels, queries: asked };
}
