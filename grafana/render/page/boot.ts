// What Grafana's own start would have set: theme, services, standard field options, transformations.
import {
  booleanOverrideProcessor,
  createTheme,
  dataLinksOverrideProcessor,
  displayNameOverrideProcessor,
  EventBusSrv,
  identityOverrideProcessor,
  LoadingState,
  locationUtil,
  numberOverrideProcessor,
  standardEditorsRegistry,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  thresholdsOverrideProcessor,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';
import {
  config,
  setAppEvents,
  setDataSourceSrv,
  setPluginImportUtils,
  setRunRequest,
  setTemplateSrv,
} from '@grafana/runtime';
import { catchError, from, map, of } from 'rxjs';
import { Prometheus } from './prometheus';

const blank: any = () => null;

function standardOptions(): any[] {
  const item = (id: string, process: any, extra: any = {}) => ({
    id,
    path: id,
    name: id,
    description: '',
    editor: blank,
    override: blank,
    process,
    settings: {},
    shouldApply: () => true,
    ...extra,
  });
  const thresholds = { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }, { value: 80, color: 'red' }] };
  return [
    item('displayName', displayNameOverrideProcessor),
    item('unit', unitOverrideProcessor),
    item('min', numberOverrideProcessor),
    item('max', numberOverrideProcessor),
    item('fieldMinMax', booleanOverrideProcessor, { defaultValue: false }),
    item('decimals', numberOverrideProcessor),
    item('thresholds', thresholdsOverrideProcessor, { defaultValue: thresholds }),
    item('mappings', valueMappingsOverrideProcessor, { defaultValue: [] }),
    item('noValue', displayNameOverrideProcessor),
    item('links', dataLinksOverrideProcessor),
    item('color', identityOverrideProcessor, { defaultValue: { mode: 'thresholds' } }),
    item('filterable', booleanOverrideProcessor),
  ];
}

export function boot(mode: 'dark' | 'light', server: string, scrapeInterval: string): void {
  config.theme2 = createTheme({ colors: { mode } });
  const user = { timezone: 'utc', weekStart: '', locale: 'en', language: 'en-US', orgRole: 'Viewer' };
  config.bootData = { user, settings: {}, navTree: [] } as any;
  config.buildInfo = { ...(config.buildInfo ?? {}), version: '13.2.3' } as any;
  config.featureToggles = {} as any;
  (config as any).appSubUrl = '';
  setAppEvents(new EventBusSrv());
  standardEditorsRegistry.setInit(() => []);
  standardFieldConfigEditorRegistry.setInit(standardOptions);
  const transformers = new Map(Object.values(standardTransformers).map((each: any) => [each.id, each]));
  standardTransformersRegistry.setInit(
    () =>
      [...transformers.values()].map((each: any) => ({
        id: each.id,
        name: each.name,
        transformation: async () => each,
        editor: blank,
        imageDark: '',
        imageLight: '',
      })) as any
  );
  const source = new Prometheus(server, scrapeInterval);
  const settings = {
    name: 'Prometheus',
    uid: 'prometheus',
    type: 'prometheus',
    isDefault: true,
    meta: source.meta,
    jsonData: {},
  } as any;
  setDataSourceSrv({
    get: async () => source,
    getList: () => [settings],
    getInstanceSettings: () => settings,
    reload() {},
    registerRuntimeDataSource() {},
  } as any);
  setTemplateSrv({
    replace: (text: string) => text,
    getVariables: () => [],
    containsTemplate: () => false,
    updateTimeRange() {},
  } as any);
  setPluginImportUtils({
    importPanelPlugin: async (id: string) => {
      throw new Error(`no panel ${id}`);
    },
    getPanelPluginFromCache: () => undefined,
  } as any);
  setRunRequest(
    (source: any, request: any, query?: any) =>
      from((query ?? source.query.bind(source))(request)).pipe(
        map((answer: any) => ({
          state: LoadingState.Done,
          series: answer.data,
          timeRange: request.range,
          request,
          annotations: [],
        })),
        catchError((error: any) =>
          of({ state: LoadingState.Error, series: [], error, timeRange: request.range, request } as any)
        )
      ) as any
  );
  locationUtil.initialize({
    config: config as any,
    getTimeRangeForUrl: () => ({ from: 'now-6h', to: 'now' }) as any,
    getVariablesUrlParams: () => ({}),
  });
}
