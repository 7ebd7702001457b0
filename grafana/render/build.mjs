// Bundles the page into dist/. Some of Grafana's packages need help, because they expect Grafana's own bundler.
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const modules = resolve(here, 'node_modules');

/** @grafana/ui needs version 5 of react-router-dom, @grafana/scenes version 6. */
const router5 = ['ui', 'runtime']
  .map((name) => resolve(modules, '@grafana', name, 'node_modules/react-router-dom'))
  .find(existsSync);

/** Node hides the default export of these CommonJS packages from .mjs files; written with __esModule, they have one. */
const commonJs = new RegExp(
  '^(react-custom-scrollbars-2|react-window|react-table|react-highlight-words|react-use|tinycolor2|classnames|' +
    'react-loading-skeleton|react-inlinesvg|react-virtualized-auto-sizer)$'
);

const repairs = {
  name: 'repairs',
  setup(bundler) {
    bundler.onResolve({ filter: /^@grafana\/plugin-compat\/datasources$/ }, () => ({
      path: resolve(here, 'page/compat.ts'),
    }));
    bundler.onResolve({ filter: /^react-router-dom$/ }, (args) =>
      args.importer.includes('v5-compat') && router5
        ? bundler.resolve('./', { kind: 'import-statement', resolveDir: router5 })
        : undefined
    );
    bundler.onResolve({ filter: commonJs }, (args) =>
      args.pluginData?.inner || !args.importer.endsWith('.mjs')
        ? undefined
        : { path: args.path, namespace: 'cjs', pluginData: { from: args.resolveDir } }
    );
    bundler.onLoad({ filter: /.*/, namespace: 'cjs' }, (args) => ({
      resolveDir: args.pluginData.from,
      contents:
        `import * as all from ${JSON.stringify(args.path)}; export * from ${JSON.stringify(args.path)};` +
        'export default all.default?.default ?? all.default ?? all;',
    }));
  },
};

await build({
  absWorkingDir: here,
  entryPoints: ['page/main.tsx'],
  bundle: true,
  outdir: 'dist',
  format: 'esm',
  splitting: true,
  minify: true,
  define: { 'process.env.NODE_ENV': '"production"', global: 'window', 'process.env': '{}' },
  jsx: 'automatic',
  logLevel: 'error',
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.ttf': 'dataurl', '.woff': 'empty', '.woff2': 'empty' },
  plugins: [repairs],
});
