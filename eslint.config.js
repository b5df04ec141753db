/**
 * The lint rules: the layers of src/ (docs/ARCHITECTURE.md), what the deterministic layers must not touch, and the
 * mistakes that types alone do not find. Each ban's message names what to use instead.
 */
import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

/** What each folder of src/ may import from, beside itself and npm packages. */
const LAYERS = {
  base: [],
  wire: ['base'],
  core: ['base', 'wire'],
  ports: ['base', 'wire', 'core'],
  host: ['base', 'wire', 'core', 'ports'],
  daemon: ['base', 'wire', 'core', 'ports', 'host'],
  cli: ['base', 'wire', 'ports', 'lab'],
  lab: ['base'],
};

/** The same for the rooms of src/core; what lies beside them (context, effects, timers) is for all. */
const CORE_ROOMS = {
  link: [],
  addresses: [],
  fitness: [],
  membership: [],
  failovers: ['membership'],
  records: [],
  gate: [],
  persistent: ['gate'],
  operations: ['records'],
  witness: ['operations', 'records'],
};

const FOLDERS = [...Object.keys(LAYERS), 'test', 'bench'];

const TIME = 'Time enters as an argument: step(input, now) and CoreContext.now(); deadlines go to CoreContext.timers.';
const RANDOM = 'Randomness is a seeded Prng (src/base/prng.ts), given to the constructor.';
const WORLD = 'The core performs nothing: emit an effect (src/core/effects.ts) and let src/host perform it.';
const SYNCHRONOUS = 'The core is synchronous: the outcome of an effect comes back as an input.';

const BANNED_GLOBALS = [
  ...['Date', 'performance', 'setTimeout', 'setInterval', 'setImmediate', 'clearTimeout', 'clearInterval'].map(
    (name) => ({ name, message: TIME }),
  ),
  { name: 'crypto', message: RANDOM },
  { name: 'process', message: WORLD },
  { name: 'console', message: 'Use CoreContext.log(level, event, fields).' },
  { name: 'fetch', message: WORLD },
  { name: 'Promise', message: SYNCHRONOUS },
  { name: 'queueMicrotask', message: SYNCHRONOUS },
];

const noModuleState = {
  selector: ':matches(Program, Program > ExportNamedDeclaration) > VariableDeclaration[kind="let"]',
  message: 'No mutable state in a module: tests run several nodes in one process. Put it into the object that owns it.',
};
const noDefaultExport = { selector: 'ExportDefaultDeclaration', message: 'Named exports only.' };
const noAsync = { selector: ':function[async=true], AwaitExpression', message: SYNCHRONOUS };

const NODE_IMPORT = { regex: '^node:', message: `${WORLD} Buffer is a global.` };

/** Imports of layers that `folder` must not know. */
function layerRule(folder, more = []) {
  const allowed = [folder, ...LAYERS[folder]];
  const forbidden = FOLDERS.filter((name) => !allowed.includes(name));
  const message = `src/${folder} may import from src/{${allowed.join(',')}} only (docs/ARCHITECTURE.md, layers).`;
  const patterns = [{ regex: `^\\.\\./(.*/)?(${forbidden.join('|')})/`, message }, ...more];
  return ['error', { patterns }];
}

/** Imports of rooms of the core that `room` must not know. */
function roomPattern(room) {
  const allowed = [room, ...CORE_ROOMS[room]];
  const forbidden = Object.keys(CORE_ROOMS).filter((name) => !allowed.includes(name));
  const message = `src/core/${room} may know core/{${allowed.join(',')}} only: core/node brings the rooms together.`;
  return { regex: `^\\.\\./(${forbidden.join('|')})/`, message };
}

const pure = ['base', 'wire', 'core'];

export default tseslint.config(
  { ignores: ['dist/**', 'build/**', 'native/**', 'samba-module/**', 'node_modules/**', '.cache/**'] },
  eslint.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-param-reassign': 'error',
      'no-restricted-syntax': ['error', noDefaultExport],
      '@typescript-eslint/consistent-type-imports': ['error', { prefer: 'type-imports' }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      // an index within bounds that the code has just checked: `!` says so more honestly than a dead branch
      '@typescript-eslint/no-non-null-assertion': 'off',
      // interfaces are written with methods here, and their implementations are often closures: they may be passed on
      '@typescript-eslint/unbound-method': 'off',
      // a port may be asynchronous in one adapter and not in another
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
      'no-restricted-syntax': ['error', noDefaultExport, noModuleState],
    },
  },
  {
    // node:test returns promises that its runner awaits itself
    files: ['test/**/*.ts'],
    rules: { '@typescript-eslint/no-floating-promises': 'off', '@typescript-eslint/no-explicit-any': 'error' },
  },
  {
    // the one place where values of the addon, which has no types, come in; it is loaded once a process
    files: ['src/host/native.ts'],
    rules: {
      'no-restricted-syntax': ['error', noDefaultExport],
      '@typescript-eslint/no-explicit-any': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
    },
  },
  ...Object.keys(LAYERS).map((folder) => ({
    files: [`src/${folder}/**/*.ts`],
    rules: { 'no-restricted-imports': layerRule(folder, pure.includes(folder) ? [NODE_IMPORT] : []) },
  })),
  ...Object.keys(CORE_ROOMS).map((room) => ({
    files: [`src/core/${room}/**/*.ts`],
    rules: { 'no-restricted-imports': layerRule('core', [NODE_IMPORT, roomPattern(room)]) },
  })),
  {
    files: pure.map((folder) => `src/${folder}/**/*.ts`),
    rules: {
      'no-restricted-globals': ['error', ...BANNED_GLOBALS],
      'no-restricted-properties': ['error', { object: 'Math', property: 'random', message: RANDOM }],
      'no-restricted-syntax': ['error', noDefaultExport, noModuleState, noAsync],
    },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', Buffer: 'readonly', URL: 'readonly' } },
  },
);
