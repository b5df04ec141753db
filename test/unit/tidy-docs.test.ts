/**
 * The documents against the code: message types in docs/protocol.md, links between documents, configuration keys and
 * npm scripts in the README. What a test cannot check, a reader must.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { configSchema } from '../../src/daemon/config-schema.js';
import { repositoryRoot } from '../support/repository.js';

const root = repositoryRoot();
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

/** `kind: number` of the TYPES table in a codec. */
function typesIn(file: string): Map<number, string> {
  const table = /const TYPES = \{([^}]*)\}/.exec(read(file))?.[1] ?? '';
  const entries = [...table.matchAll(/'?([a-z-]+)'?: (\d+)/g)];
  return new Map(entries.map(([, kind, type]) => [Number(type), kind ?? '']));
}

test('docs/protocol.md lists every message type of the codecs, and no other', () => {
  const layers = ['record', 'gate', 'persistent', 'witness', 'address', 'fitness'];
  const codecs = layers.map((layer) => typesIn(`src/wire/${layer}-messages.ts`));
  const inCode = codecs.flatMap((types) => [...types]).map(([type, kind]) => `${type} ${kind}`);
  const [, messages = ''] = read('docs/protocol.md').split('## 3. Records');
  const rows = messages.matchAll(/^\| (\d+) \| ([a-z-]+) \|/gm);
  const inDocs = [...rows].map(([, type, kind]) => `${type} ${kind}`);
  assert.ok(inCode.length > 30, 'the tables of types are found');
  assert.deepEqual(inDocs.filter((row) => inCode.includes(row)).sort(), inCode.sort());
  assert.deepEqual(inDocs.filter((row) => !inCode.includes(row)), []);
});

test('docs/protocol.md lists the bodies about views', () => {
  const inCode = [...typesIn('src/wire/membership-messages.ts')].map(([type, kind]) => `${type} ${kind}`);
  const [, bodies = ''] = read('docs/protocol.md').split('### Bodies about views');
  const rows = (bodies.split('## 3. Records')[0] ?? '').matchAll(/^\| (\d+) \| ([a-z-]+) \|/gm);
  assert.equal(inCode.length, 11);
  assert.deepEqual([...rows].map(([, type, kind]) => `${type} ${kind}`), inCode);
});

function documents(): string[] {
  const inFolder = (folder: string) =>
    readdirSync(join(root, folder)).filter((name) => name.endsWith('.md')).map((name) => join(folder, name));
  return [...inFolder('.'), ...inFolder('docs'), ...inFolder('docs/decisions')];
}

test('links between documents lead somewhere', () => {
  const broken = documents().flatMap((file) =>
    [...read(file).matchAll(/\]\(([^)#:\s]+)(#[^)]*)?\)/g)]
      .map(([, target]) => target ?? '')
      .filter((target) => !existsSync(join(root, dirname(file), target)))
      .map((target) => `${file}: ${target}`),
  );
  assert.deepEqual(broken, []);
});

test('every decision is in the index', () => {
  const index = read('docs/decisions/README.md');
  const pages = readdirSync(join(root, 'docs/decisions')).filter((name) => name !== 'README.md');
  assert.deepEqual(pages.filter((name) => !index.includes(`(${name})`)), []);
});

/** `a.b` for every value of the configuration; `a[].b` inside lists. */
function keysOf(schema: unknown, path = ''): string[] {
  const { shape, element, def } = schema as { shape?: object; element?: unknown; def?: { innerType?: unknown } };
  if (def?.innerType !== undefined) return keysOf(def.innerType, path);
  if (element !== undefined) return keysOf(element, `${path}[]`);
  if (shape === undefined) return [path];
  return Object.entries(shape).flatMap(([key, inner]) => keysOf(inner, path === '' ? key : `${path}.${key}`));
}

test('the README lists every key of the configuration, and no other', () => {
  const table = /## Configuration\n([^]*?)\n## /.exec(read('README.md'))?.[1] ?? '';
  const listed = [...table.matchAll(/^\| ([^|]*) \|/gm)].flatMap(([, cell]) => {
    const names = [...(cell ?? '').matchAll(/`([^`]+)`/g)].map(([, name]) => name ?? '');
    // "`faults.lossPercent`, `.seed`": the block is named once
    return names.map((name) => (name.startsWith('.') ? `${names[0]?.split('.')[0] ?? ''}${name}` : name));
  });
  assert.deepEqual(listed.sort(), keysOf(configSchema).sort());
});

test('npm scripts that the documents name exist', () => {
  const scripts = Object.keys((JSON.parse(read('package.json')) as { scripts: object }).scripts);
  const text = documents().map(read).join('\n');
  const named = [...text.matchAll(/npm run ([a-z-]+)/g)].map(([, name]) => name ?? '');
  assert.deepEqual(named.filter((name) => !scripts.includes(name)), []);
});
