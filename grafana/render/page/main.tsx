// A page that draws one dashboard with Grafana's scenes, data and ui packages. Its address says which, and when.
import { dateMath, dateTimeParse, ThemeContext } from '@grafana/data';
import { config } from '@grafana/runtime';
import {
  behaviors,
  dataLayers,
  DataSourceVariable,
  EmbeddedScene,
  QueryVariable,
  SceneControlsSpacer,
  SceneDataLayerControls,
  SceneDataLayerSet,
  SceneDataTransformer,
  sceneGraph,
  SceneGridItem,
  SceneGridLayout,
  SceneGridRow,
  SceneObjectBase,
  SceneQueryRunner,
  SceneRefreshPicker,
  SceneTimePicker,
  SceneTimeRange,
  SceneVariableSet,
  TextBoxVariable,
  VariableValueSelectors,
  VizPanel,
} from '@grafana/scenes';
import { GlobalStyles, Icon, LinkButton, PanelChrome, PortalContainer, Tooltip } from '@grafana/ui';
import React, { useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import { MemoryRouter } from 'react-router-dom';
import { boot } from './boot';
import { facts, state } from './facts';
import { register } from './panels';

const parameters = new URLSearchParams(location.search);
const get = (name: string, other: string) => parameters.get(name) ?? other;

/** Links of panels by the panel's id, as they lead on. */
const panelLinks: Record<string, any[]> = {};

class Menu extends SceneObjectBase<any> {
  static Component = ({ model }: any) => (
    <div style={{ display: 'flex', gap: 8 }}>
      {model.state.links.map((link: any) => (
        <LinkButton key={link.title} icon="bars" variant="secondary" size="md" fill="outline" href="#">
          {link.title}
        </LinkButton>
      ))}
    </div>
  );
}

class PanelLinks extends SceneObjectBase<any> {
  static Component = ({ model }: any) => {
    const links = model.state.links.map((link: any) => ({
      title: link.title,
      href: sceneGraph.interpolate(model, link.url),
    }));
    const id = (model.parent as VizPanel).getLegacyPanelId();
    useEffect(() => {
      panelLinks[id] = links;
    });
    return (
      <Tooltip content={links.map((link: any) => link.title).join(', ')}>
        <PanelChrome.TitleItem href={links[0].href}>
          <Icon name="external-link-alt" size="md" />
        </PanelChrome.TitleItem>
      </Tooltip>
    );
  };
}

/** A panel with a time range of its own ends when the dashboard ends. */
function ownRange(timeFrom: string | undefined) {
  if (!timeFrom) return undefined;
  const to = get('to', 'now');
  const end = dateTimeParse(to, { timeZone: 'utc' });
  const from = dateMath.parseDateMath(`-${timeFrom}`, end.clone());
  return new SceneTimeRange({ from: from!.toISOString(), to, timeZone: 'utc' });
}

function panelOf(json: any) {
  const runner = new SceneQueryRunner({
    datasource: json.datasource,
    queries: json.targets.map((target: any) => ({ ...target, interval: target.interval ?? json.interval })),
    maxDataPointsFromWidth: true,
  });
  return new VizPanel({
    key: `panel-${json.id}`,
    title: json.title,
    description: json.description,
    pluginId: json.type,
    options: json.options ?? {},
    fieldConfig: json.fieldConfig,
    pluginVersion: json.pluginVersion,
    $timeRange: ownRange(json.timeFrom),
    titleItems: json.links?.length ? [new PanelLinks({ links: json.links })] : undefined,
    $data: json.transformations?.length
      ? new SceneDataTransformer({ $data: runner, transformations: json.transformations })
      : runner,
  } as any);
}

const item = (json: any) =>
  new SceneGridItem({
    x: json.gridPos.x,
    y: json.gridPos.y,
    width: json.gridPos.w,
    height: json.gridPos.h,
    body: panelOf(json),
  });

function variableOf(json: any) {
  const common = { name: json.name, label: json.label, hide: json.hide };
  if (json.type === 'datasource') return new DataSourceVariable({ ...common, pluginId: json.query });
  const set = parameters.getAll(`var-${json.name}`);
  if (json.type === 'textbox') return new TextBoxVariable({ ...common, value: set[0] ?? json.query });
  const some = json.multi ? set : set[0];
  const value = set.length ? some : json.includeAll ? ['$__all'] : (json.current?.value ?? '');
  return new QueryVariable({
    ...common,
    datasource: json.datasource,
    query: json.query,
    refresh: json.refresh,
    sort: json.sort,
    isMulti: json.multi,
    includeAll: json.includeAll,
    allValue: json.allValue,
    value,
    text: set.length ? set : json.includeAll ? ['All'] : '',
    regex: json.regex ?? '',
  } as any);
}

function scene(board: any) {
  const unfold = get('rows', '') === 'open';
  let lower = 0; // by how much an unfolded row moves what is below it
  const children = board.panels.map((json: any) => {
    const at = { ...json.gridPos, y: json.gridPos.y + lower };
    if (json.type !== 'row') return item({ ...json, gridPos: at });
    const moved = json.panels.map((each: any) => {
      const { gridPos } = each;
      return { ...each, gridPos: { ...gridPos, y: gridPos.y + lower } };
    });
    const bottom = Math.max(0, ...json.panels.map((each: any) => each.gridPos.y + each.gridPos.h));
    if (unfold) lower += Math.max(0, bottom - json.gridPos.y - 1);
    return new SceneGridRow({
      title: json.title,
      isCollapsed: json.collapsed && !unfold,
      isCollapsible: true,
      x: 0,
      y: at.y,
      width: 24,
      children: moved.map(item),
    } as any);
  });
  const annotations = board.annotations.list.filter((json: any) => json.expr);
  return new EmbeddedScene({
    $timeRange: new SceneTimeRange({ from: get('from', ''), to: get('to', ''), timeZone: 'utc' }),
    $variables: new SceneVariableSet({ variables: board.templating.list.map(variableOf) }),
    $data: new SceneDataLayerSet({
      layers: annotations.map(
        (json: any) =>
          new dataLayers.AnnotationsDataLayer({
            name: json.name,
            isEnabled: json.enable,
            isHidden: json.hide,
            query: json,
          })
      ),
    }),
    $behaviors: [new behaviors.CursorSync({ sync: board.graphTooltip })],
    controls: [
      new VariableValueSelectors({}),
      new SceneDataLayerControls(),
      new SceneControlsSpacer(),
      new Menu({ links: board.links }),
      new SceneTimePicker({}),
      new SceneRefreshPicker({ refresh: '', intervals: [board.refresh] }),
    ],
    body: new SceneGridLayout({ children, isLazy: false } as any),
  });
}

async function main() {
  const mode = get('theme', 'dark') as 'dark' | 'light';
  boot(mode, location.origin, get('scrape', '15s'));
  register();
  const board = await (await fetch('/page/board.json')).json();
  const made = scene(board);
  const { canvas } = config.theme2.colors.background;
  const edge = `1px solid ${config.theme2.colors.border.weak}`;
  document.body.className = `theme-${mode}`;
  createRoot(document.getElementById('root')!).render(
    <ThemeContext.Provider value={config.theme2}>
      <GlobalStyles />
      <MemoryRouter initialEntries={['/d/x']}>
        <div id="page" style={{ background: canvas, minHeight: '100vh', padding: '0 16px 16px' }}>
          <div
            style={{
              height: 40,
              display: 'flex',
              alignItems: 'center',
              gap: 8,
              borderBottom: edge,
              margin: '0 -16px 8px',
              padding: '0 16px',
            }}
          >
            <span style={{ color: config.theme2.colors.text.secondary }}>Home › Dashboards › Energy ›</span>
            <span>{board.title}</span>
          </div>
          <made.Component model={made} />
        </div>
      </MemoryRouter>
      <PortalContainer />
    </ThemeContext.Provider>
  );
}

let failed: string | undefined;
Object.assign(window, { renderState: () => state(failed), renderFacts: () => facts(failed, panelLinks) });
main().catch((error) => {
  failed = String(error?.stack ?? error);
});
