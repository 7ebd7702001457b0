// A Prometheus data source after the HTTP API's documentation; answers in the shapes of Grafana's own one, whose
// licence is the AGPL.
import { DataSourceApi, FieldType, rangeUtil, toDataFrame } from '@grafana/data';
import { sceneGraph } from '@grafana/scenes';
import { from, Observable, of } from 'rxjs';

const seconds = (interval: string) => rangeUtil.intervalToSeconds(interval);

/** Every query that was sent, with its time, the number of its series, or its error. */
export const asked: any[] = [];

/** A literal text inside a regular expression inside a PromQL string: special signs get two backslashes. */
const escaped = (value: string) =>
  [...value]
    .map((sign) => (sign === '\\' ? '\\'.repeat(4) : '^$.|?*+()[]{}'.includes(sign) ? '\\'.repeat(2) + sign : sign))
    .join('');

const plain = (value: string) => value.replace(/\\/g, '\\\\').replace(/"/g, '\\"');

/** Variables in PromQL: several values become a regular expression. */
function forPromQl(value: any, variable: any) {
  if (typeof value !== 'string' && !Array.isArray(value)) return String(value);
  if (!variable.multi && !variable.includeAll) return plain(value as string);
  const each = (Array.isArray(value) ? value : [value]).map(escaped);
  return each.length === 1 ? each[0] : `(${each.join('|')})`;
}

const filled = (format: string | undefined, labels: Record<string, string>) =>
  (format ?? '').replace(/\{\{\s*(.+?)\s*\}\}/g, (_, key) => labels[key] ?? '');

function legend(format: string | undefined, labels: Record<string, string>, expr: string) {
  if (format && format !== '__auto') return filled(format, labels);
  const name = labels.__name__ ?? '';
  const rest = Object.entries(labels).filter(([key]) => key !== '__name__');
  if (format === '__auto' && rest.length === 1) return rest[0][1];
  const text = rest.map(([key, value]) => `${key}="${value}"`).join(', ');
  return text || name ? `${name}${text ? `{${text}}` : ''}` : expr;
}

const number = (text: string) => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));

function frame(target: any, metric: any, values: any[], expr: string, step: number) {
  const named = legend(target.legendFormat, metric, expr);
  const times: number[] = [];
  const numbers: Array<number | null> = [];
  let next = values.length ? values[0][0] : 0;
  for (const [time, value] of values) {
    for (; step && time - next > step / 2; next += step) {
      times.push(next * 1000);
      numbers.push(null); // a step without a sample is a gap
    }
    times.push(time * 1000);
    numbers.push(number(value));
    next = time + step;
  }
  return toDataFrame({
    refId: target.refId,
    name: named,
    meta: { type: 'timeseries-multi', executedQueryString: expr },
    fields: [
      { name: 'Time', type: FieldType.time, config: { interval: step * 1000 }, values: times },
      { name: 'Value', type: FieldType.number, labels: metric, config: { displayNameFromDS: named }, values: numbers },
    ],
  });
}

function tableOf(target: any, result: any[], targets: number) {
  if (!result.length) return toDataFrame({ refId: target.refId, fields: [] });
  const labels = [...new Set<string>(result.flatMap((series: any) => Object.keys(series.metric)))].sort();
  return toDataFrame({
    refId: target.refId,
    meta: { preferredVisualisationType: 'table' },
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map((series: any) => series.value[0] * 1000) },
      ...labels.map((name) => ({
        name,
        type: FieldType.string,
        config: { filterable: true },
        values: result.map((series: any) => series.metric[name] ?? ''),
      })),
      {
        name: targets > 1 ? `Value #${target.refId}` : 'Value',
        type: FieldType.number,
        values: result.map((series: any) => number(series.value[1])),
      },
    ],
  });
}

/** Steps in which an annotation's query answers with a value above 0 become regions, as in Grafana. */
function events(json: any, frames: any[]) {
  const made: any[] = [];
  for (const one of frames) {
    const labels = one.fields[1]?.labels ?? {};
    const times = one.fields[0].values.filter((_: any, index: number) => one.fields[1].values[index] > 0);
    let begin: number | undefined;
    let last: number | undefined;
    const close = () =>
      begin !== undefined &&
      made.push({
        time: begin,
        timeEnd: last,
        isRegion: last! > begin,
        title: filled(json.titleFormat, labels),
        text: filled(json.textFormat, labels),
        tags: (json.tagKeys ?? '')
          .split(',')
          .filter(Boolean)
          .map((key: string) => labels[key.trim()]),
        annotation: json,
        labels,
      });
    for (const time of times) {
      if (last !== undefined && time - last > 90_000) {
        close();
        begin = undefined;
      }
      begin ??= time;
      last = time;
    }
    close();
  }
  return made;
}

export class Prometheus extends DataSourceApi<any> {
  interval: string;

  constructor(
    private server: string,
    scrapeInterval: string
  ) {
    super({
      name: 'Prometheus',
      uid: 'prometheus',
      type: 'prometheus',
      id: 1,
      readOnly: true,
      jsonData: {},
      access: 'proxy',
      meta: {
        id: 'prometheus',
        name: 'Prometheus',
        type: 'datasource',
        info: { logos: {}, author: {}, links: [], screenshots: [] },
      },
    } as any);
    this.interval = scrapeInterval;
    this.annotations = {
      prepareAnnotation: (json: any) => ({
        ...json,
        target: { refId: 'Anno', expr: json.expr, step: json.step, range: true },
      }),
      prepareQuery: (json: any) => ({
        refId: 'Anno',
        expr: json.expr,
        range: true,
        instant: false,
        annotation: true,
        step: json.step || '60s',
      }),
      processEvents: (json: any, frames: any[]) => of(events(json, frames)),
    } as any;
  }

  private async get(path: string, parameters: Record<string, string>) {
    const answer = await fetch(`${this.server}/api/v1/${path}`, {
      method: 'POST',
      body: new URLSearchParams(parameters),
    });
    const body = await answer.json();
    if (body.status !== 'success') throw new Error(`${body.errorType}: ${body.error}`);
    return body.data;
  }

  /** A variable's choices in the dashboard's time range: `label_values(metric{...}, label)` or `query_result(expr)`. */
  async metricFindQuery(query: any, options: any) {
    const scene = options.scopedVars?.__sceneObject?.value?.valueOf();
    const start = options.range.from.unix();
    const end = options.range.to.unix();
    const scoped = { ...options.scopedVars, __range: { value: `${end - start}s` } };
    const text = sceneGraph.interpolate(
      scene,
      typeof query === 'string' ? query : query.query,
      scoped,
      forPromQl as any
    );
    const result = /^query_result\((.+)\)\s*$/.exec(text);
    if (result) {
      const data = await this.get('query', { query: result[1], time: String(end) });
      return data.result.map((series: any) => {
        const { __name__, ...labels } = series.metric;
        const pairs = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
        return { text: `${__name__ ?? ''}{${pairs.join(',')}} ${series.value[1]} ${series.value[0] * 1000}` };
      });
    }
    const values = /^label_values\((?:(.+),\s*)?([a-zA-Z_]\w*)\)\s*$/.exec(text);
    if (!values) throw new Error(`not understood: ${text}`);
    const address = new URL(`${this.server}/api/v1/label/${values[2]}/values`);
    if (values[1]) address.searchParams.append('match[]', values[1]);
    address.searchParams.set('start', String(start));
    address.searchParams.set('end', String(end));
    const body = await (await fetch(address)).json();
    return (body.data ?? []).map((value: string) => ({ text: value }));
  }

  query(request: any): Observable<any> {
    return from(this.all(request));
  }

  private async all(request: any) {
    const targets = request.targets.filter((target: any) => !target.hide);
    const results = await Promise.all(targets.map((target: any) => this.one(request, target, targets.length)));
    return { data: results.flat() };
  }

  private async one(request: any, target: any, targets: number) {
    const scene = request.scopedVars.__sceneObject?.value?.valueOf();
    const scrape = seconds(this.interval);
    const begin = request.range.from.unix();
    const end = request.range.to.unix();
    const range = end - begin;
    // as Grafana's backend: by the width of the panel, not finer than a scrape, at most 11,000 points
    const fine = rangeUtil.calculateInterval(
      request.range,
      request.maxDataPoints || 500,
      target.interval || this.interval
    );
    const step = target.step ? seconds(target.step) : Math.max(fine.intervalMs / 1000, range / 11000, scrape);
    const rate = Math.max(step + scrape, 4 * scrape);
    const scoped = {
      ...request.scopedVars,
      __rate_interval: { value: `${rate}s` },
      __interval: { value: `${step}s` },
      __interval_ms: { value: step * 1000 },
      __range: { value: `${Math.round(range)}s` },
      __range_s: { value: Math.round(range) },
      __range_ms: { value: range * 1000 },
    };
    const expr = sceneGraph.interpolate(scene, target.expr, scoped, forPromQl as any);
    const began = performance.now();
    const record: any = { expr, step };
    asked.push(record);
    try {
      if (target.instant) {
        const data = await this.get('query', { query: expr, time: String(end) });
        const result = data.resultType === 'scalar' ? [{ metric: {}, value: data.result }] : data.result;
        record.series = result.length;
        if (target.format === 'table') return [tableOf(target, result, targets)];
        return result.map((series: any) => frame(target, series.metric, [series.value], expr, 0));
      }
      const aligned = (time: number) => String(Math.floor(time / step) * step);
      const span = { start: aligned(begin), end: aligned(end), step: String(step) };
      const data = await this.get('query_range', { query: expr, ...span });
      record.series = data.result.length;
      return data.result.map((series: any) => frame(target, series.metric, series.values, expr, step));
    } catch (error: any) {
      record.error = error.message;
      throw error;
    } finally {
      record.ms = Math.round(performance.now() - began);
    }
  }
}
