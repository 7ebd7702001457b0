// Thin panels around @grafana/ui's components: what Grafana's stat, bar gauge, table and time series panels draw with.
import {
  FieldType,
  formattedValueToString,
  getDisplayValueAlignmentFactors,
  getFieldDisplayName,
  getFieldDisplayValues,
  identityOverrideProcessor,
  PanelPlugin,
  VizOrientation,
} from '@grafana/data';
import { config } from '@grafana/runtime';
import { sceneUtils } from '@grafana/scenes';
import { BarGauge, BigValue, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import React, { useMemo } from 'react';

/** What each panel shows, by its id. */
export const seen: Record<string, any> = {};

const Nothing = ({ text }: { text: string }) => (
  <div
    style={{
      display: 'flex',
      alignItems: 'center',
      justifyContent: 'center',
      height: '100%',
      textAlign: 'center',
      padding: 8,
    }}
  >
    {text}
  </div>
);

function note(props: any, extra: any) {
  const { title, data, fieldConfig } = props;
  seen[props.id] = {
    title,
    state: data.state,
    error: data.error?.message,
    empty: fieldConfig.defaults.noValue,
    ...extra,
  };
}

function displayed(props: any) {
  return getFieldDisplayValues({
    fieldConfig: props.fieldConfig,
    reduceOptions: props.options.reduceOptions,
    replaceVariables: props.replaceVariables,
    theme: config.theme2,
    data: props.data.series,
    sparkline: false,
    timeZone: props.timeZone,
  } as any);
}

const linksOf = (value: any) =>
  value.hasLinks && value.getLinks
    ? value.getLinks({}).map((link: any) => ({ title: link.title, href: link.href }))
    : [];

function noteValues(props: any, type: string, values: any[]) {
  note(props, {
    type,
    links: values.flatMap(linksOf),
    values: values.map((each) => ({
      name: each.display.title,
      text: formattedValueToString(each.display),
      color: each.display.color,
    })),
  });
}

const Stat = (props: any) => {
  const { options, width, height, data } = props;
  const values = useMemo(() => displayed(props), [data, props.fieldConfig]);
  noteValues(props, 'stat', values);
  const single = values.length === 1;
  return (
    <VizRepeater
      getValues={() => values as any}
      source={data}
      width={width}
      height={height}
      renderCounter={props.renderCounter}
      orientation={options.orientation ?? VizOrientation.Auto}
      getAlignmentFactors={getDisplayValueAlignmentFactors as any}
      renderValue={({ value, alignmentFactors, width, height }: any) => (
        <BigValue
          value={single ? { ...value.display, title: undefined } : value.display}
          sparkline={value.sparkline}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode}
          alignmentFactors={alignmentFactors}
          width={width}
          height={height}
          theme={config.theme2}
          wideLayout={options.wideLayout}
          disableWideLayout={!options.wideLayout}
          text={options.text}
        />
      )}
    />
  );
};

const Bars = (props: any) => {
  const { options, width, height, data } = props;
  const values = useMemo(() => displayed(props), [data, props.fieldConfig]);
  noteValues(props, 'bargauge', values);
  return (
    <VizRepeater
      getValues={() => values as any}
      source={data}
      width={width}
      height={height}
      orientation={options.orientation}
      renderCounter={props.renderCounter}
      getAlignmentFactors={getDisplayValueAlignmentFactors as any}
      minVizHeight={options.minVizHeight}
      minVizWidth={options.minVizWidth}
      maxVizHeight={options.maxVizHeight ?? 300}
      itemSpacing={8}
      renderValue={({ value, alignmentFactors, orientation, width, height, count }: any) => (
        <BarGauge
          value={value.display}
          width={width}
          height={height}
          orientation={orientation}
          field={value.field}
          text={options.text}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          theme={config.theme2}
          itemSpacing={8}
          lcdCellWidth={18}
          displayMode={options.displayMode}
          alignmentFactors={count > 1 ? alignmentFactors : undefined}
          showUnfilled={options.showUnfilled}
          valueDisplayMode={options.valueMode}
          namePlacement={options.namePlacement}
          isOverflow={false}
        />
      )}
    />
  );
};

const textOf = (field: any, row: number) =>
  field.display ? formattedValueToString(field.display(field.values[row])) : String(field.values[row]);

const Tabular = (props: any) => {
  const { data, options, width, height, fieldConfig } = props;
  const frame = data.series[options.frameIndex ?? 0];
  const shown = frame?.fields.filter((field: any) => !field.config.custom?.hidden) ?? [];
  const rows = Array.from({ length: frame?.length ?? 0 }, (_, row) => row);
  note(props, {
    type: 'table',
    columns: shown.map((field: any) => getFieldDisplayName(field, frame)),
    rows: rows.map((row) => shown.map((field: any) => textOf(field, row))),
    links: rows.flatMap((row) =>
      shown.flatMap((field: any) =>
        (field.getLinks?.({ valueRowIndex: row }) ?? []).map((link: any) => ({ title: link.title, href: link.href }))
      )
    ),
  });
  if (!frame?.length || !shown.length) return <Nothing text={fieldConfig.defaults.noValue ?? 'No data'} />;
  const more: any = { sortBy: options.sortBy, showTypeIcons: options.showTypeIcons, timeRange: props.timeRange };
  return (
    <TableNG
      {...more}
      data={frame}
      width={width}
      height={height}
      noHeader={!options.showHeader}
      initialSortBy={options.sortBy}
      cellHeight={options.cellHeight}
      fieldConfig={fieldConfig}
      structureRev={data.structureRev}
      getActions={() => []}
      replaceVariables={props.replaceVariables}
      disableSanitizeHtml={false}
      transparent={false}
    />
  );
};

/** Frames with times and numbers, without what is not finite. */
function graphable(series: any[]) {
  const finite = (value: any) => (value === null || Number.isFinite(value) ? value : null);
  return series
    .map((frame) => ({
      ...frame,
      fields: frame.fields.map((field: any) =>
        field.type === FieldType.number ? { ...field, values: field.values.map(finite) } : field
      ),
    }))
    .filter((frame) =>
      [FieldType.time, FieldType.number].every((type) => frame.fields.some((field: any) => field.type === type))
    );
}

const Course = (props: any) => {
  const { data, options, width, height, timeRange, timeZone } = props;
  const frames = useMemo(() => graphable(data.series), [data.series]);
  const marks = data.annotations ?? [];
  const lines = frames.map((frame) => frame.fields.find((each: any) => each.type === FieldType.number));
  note(props, {
    type: 'timeseries',
    annotations: marks.flatMap((frame: any) => frame.fields.find((each: any) => each.name === 'title')?.values ?? []),
    links: lines.flatMap((field) =>
      (field.getLinks?.({ valueRowIndex: 0 }) ?? []).map((link: any) => ({ title: link.title, href: link.href }))
    ),
    series: frames.map((frame, index) => {
      const field = lines[index];
      const values = field.values.filter((value: any) => value !== null);
      return {
        name: getFieldDisplayName(field, frame, frames),
        points: values.length,
        last: values.length ? formattedValueToString(field.display(values.at(-1))) : '',
        color: field.display(values.at(-1) ?? 0).color,
      };
    }),
  });
  if (!frames.length) return <Nothing text={props.fieldConfig.defaults.noValue ?? 'No data'} />;
  return (
    <TimeSeries
      frames={frames}
      structureRev={data.structureRev}
      timeRange={timeRange}
      timeZone={[timeZone] as any}
      width={width}
      height={height}
      legend={options.legend}
      options={options}
    >
      {(builder: any) => {
        builder.addHook('draw', (plot: any) => annotate(plot, marks));
        return null;
      }}
    </TimeSeries>
  );
};

/** Not Grafana's: a region's edges as dashed lines and a bar on the axis, as its annotations look. */
function annotate(plot: any, frames: any[]) {
  const { ctx, bbox } = plot;
  ctx.save();
  for (const frame of frames) {
    const get = (name: string) => frame.fields.find((field: any) => field.name === name)?.values ?? [];
    const [begin, end, color] = ['time', 'timeEnd', 'color'].map(get);
    for (let index = 0; index < frame.length; index++) {
      const edges = [begin[index], end[index]].filter((time) => time !== undefined && time !== null);
      const at = (time: number) =>
        Math.max(bbox.left, Math.min(bbox.left + bbox.width, plot.valToPos(time, 'x', true)));
      ctx.strokeStyle = ctx.fillStyle = color[index] ?? 'red';
      ctx.setLineDash([5, 5]);
      ctx.lineWidth = 2;
      const places = edges.map(at);
      for (const x of places) {
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      if (places.length === 2) ctx.fillRect(places[0], bbox.top + bbox.height, places[1] - places[0], 4);
    }
  }
  ctx.restore();
}

const custom = (defaults: Record<string, any>) => (builder: any) => {
  for (const [path, defaultValue] of Object.entries(defaults)) {
    builder.addCustomEditor({
      id: path,
      path,
      name: path,
      editor: () => null,
      override: () => null,
      process: identityOverrideProcessor,
      shouldApply: () => true,
      defaultValue,
      settings: {},
    });
  }
};

const OF_TABLES = {
  width: undefined,
  minWidth: undefined,
  align: 'auto',
  cellOptions: { type: 'auto' },
  inspect: false,
  filterable: undefined,
  hidden: undefined,
  wrapText: undefined,
  wrapHeaderText: undefined,
  footer: undefined,
};

const OF_LINES = {
  drawStyle: 'line',
  lineInterpolation: 'linear',
  lineWidth: 1,
  fillOpacity: 0,
  gradientMode: 'none',
  lineStyle: { fill: 'solid' },
  spanNulls: false,
  insertNulls: false,
  showPoints: 'auto',
  pointSize: 5,
  stacking: { mode: 'none', group: 'A' },
  axisPlacement: 'auto',
  axisLabel: '',
  axisWidth: undefined,
  axisSoftMin: undefined,
  axisSoftMax: undefined,
  axisGridShow: undefined,
  axisColorMode: 'text',
  axisBorderShow: false,
  axisCenteredZero: false,
  scaleDistribution: { type: 'linear' },
  barAlignment: 0,
  barWidthFactor: 0.6,
  hideFrom: { tooltip: false, viz: false, legend: false },
  thresholdsStyle: { mode: 'off' },
  transform: undefined,
  fillBelowTo: undefined,
  fillColor: undefined,
  lineColor: undefined,
  pointColor: undefined,
};

export function register(): void {
  const add = (pluginId: string, panel: any, defaults: Record<string, any>, standardOptions: any = {}) => {
    const plugin: any = new PanelPlugin(panel);
    plugin.useFieldConfig({ useCustomConfig: custom(defaults), standardOptions });
    const events = pluginId === 'timeseries';
    plugin.setDataSupport({ annotations: events, alertStates: events });
    sceneUtils.registerRuntimePanelPlugin({ pluginId, plugin });
  };
  add('stat', Stat, {});
  add('bargauge', Bars, {});
  add('table', Tabular, OF_TABLES);
  add('timeseries', Course, OF_LINES, { color: { defaultValue: { mode: 'palette-classic' }, settings: {} } });
}
