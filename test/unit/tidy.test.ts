/**
 * Rules about the repository's files that the compiler and the linter do not know: lengths, leftover marks, import
 * cycles, a lock file without addresses. Each message says what to do.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import test from 'node:test';
import { repositoryRoot } from '../support/repository.js';

const root = repositoryRoot();
const LINE_LENGTH_MAX = 120;

/** Written so that this file does not contain what it looks for. */
const UNFINISHED = ['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'];
const MARKS: { pattern: RegExp; advice: string }[] = [
  { pattern: new RegExp(`\\b(${UNFINISHED.join('|')})\\b`), advice: 'finish it' },
  { pattern: new RegExp('\\.on' + 'ly\\('), advice: 'run all tests again' },
  { pattern: new RegExp('\\bdebug' + 'ger\\b'), advice: 'remove it' },
  {
    pattern: new RegExp(['(^|[\\s\'"`(=])/wo' + 'rk/', '/ho' + 'me/[a-z]', '/ro' + 'ot/', '/tmp/s' + 'rc'].join('|')),
    advice: 'no paths of one machine',
  },
];

/** Files whose text is not ours to shape. */
const FOREIGN = new Set(['LICENSE', 'package-lock.json']);
const SOURCE = /\.(ts|js|mjs|c|cc|cpp|h|hpp|sh|py|md|yaml|yml|gyp|service)$/;

/** Files that git knows, or would know with the next `git add`. */
function listFiles(): string[] {
  const git = ['ls-files', '--cached', '--others', '--exclude-standard'];
  const output = execFileSync('git', git, { cwd: root, encoding: 'utf8' });
  return output.split('\n').filter((file) => file !== '' && !FOREIGN.has(file) && existsSync(join(root, file)));
}

const files = existsSync(join(root, '.git')) ? listFiles() : [];
const sources = files.filter((file) => SOURCE.test(file));
const skip = files.length === 0 ? 'needs a git clone: it lists the files with git' : false;
const linesOf = (file: string): string[] => readFileSync(join(root, file), 'utf8').split('\n');

function report(problems: string[]): void {
  assert.equal(problems.length, 0, `\n${problems.join('\n')}`);
}

/** Addresses, and rows of tables in Markdown. */
function cannotBreak(file: string, line: string): boolean {
  return /https?:\/\//.test(line) || (file.endsWith('.md') && line.startsWith('|'));
}

test('lines are not longer than 120 characters', { skip }, () => {
  report(
    sources.flatMap((file) =>
      linesOf(file).flatMap((line, index) =>
        line.length <= LINE_LENGTH_MAX || cannotBreak(file, line)
          ? []
          : [`${file}:${index + 1}: ${line.length} characters; break the line`],
      ),
    ),
  );
});

test('no marks of unfinished work, no paths of one machine', { skip }, () => {
  report(
    sources.flatMap((file) =>
      linesOf(file).flatMap((line, index) =>
        MARKS.filter(({ pattern }) => pattern.test(line)).map(
          ({ advice }) => `${file}:${index + 1}: ${line.trim().slice(0, 80)}; ${advice}`,
        ),
      ),
    ),
  );
});

test('text files end with one newline and have no blanks at line ends', { skip }, () => {
  report(
    sources.flatMap((file) => {
      const lines = linesOf(file);
      const blank = lines.findIndex((line) => /[ \t\r]$/.test(line));
      const problems = blank === -1 ? [] : [`${file}:${blank + 1}: blanks at the end of the line`];
      if (lines.at(-1) !== '' || lines.at(-2) === '') problems.push(`${file}: must end with exactly one newline`);
      return problems;
    }),
  );
});

test('source files open with a comment that says what they are for', { skip }, () => {
  report(
    sources
      .filter((file) => /\.(ts|js|mjs|c|cc|cpp|h|hpp|sh)$/.test(file))
      .filter((file) => {
        const first = linesOf(file).find((line) => line !== '' && !line.startsWith('#!'));
        return !/^(\/\*|\/\/|#)/.test(first ?? '');
      })
      .map((file) => `${file}: write two to ten lines first: what for, who calls it, what it must never do`),
  );
});

test('the lock file holds no download addresses', () => {
  const lock = readFileSync(join(root, 'package-lock.json'), 'utf8');
  assert.doesNotMatch(lock, /"resolved"/, 'run "npm install" with the .npmrc of this repository');
});

test('modules do not import each other in a circle', { skip }, () => {
  const modules = new Map(sources.filter((file) => file.endsWith('.ts')).map((file) => [file, importsOf(file)]));
  const cycle = findCycle(modules);
  assert.equal(cycle, null, `${cycle?.join(' -> ') ?? ''}: move what both need into a module of its own`);
});

test('the search for circles finds one', () => {
  const modules = new Map([
    ['a', ['b']],
    ['b', ['c']],
    ['c', ['b']],
  ]);
  assert.deepEqual(findCycle(modules), ['b', 'c', 'b']);
});

/** The repository's modules that a module loads at run time; types vanish when compiled. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const statements = text.matchAll(/^(?:import|export)\s+(type\s+)?[^'"]*?from\s+'(\.[^']+)'/gm);
  return [...statements]
    .filter(([, type]) => type === undefined)
    .map(([, , path]) => normalize(join(dirname(file), (path ?? '').replace(/\.js$/, '.ts'))));
}

function findCycle(modules: ReadonlyMap<string, readonly string[]>): string[] | null {
  const finished = new Set<string>();
  const visit = (name: string, path: readonly string[]): string[] | null => {
    const start = path.indexOf(name);
    if (start !== -1) return [...path.slice(start), name];
    if (finished.has(name)) return null;
    for (const next of modules.get(name) ?? []) {
      const cycle = visit(next, [...path, name]);
      if (cycle !== null) return cycle;
    }
    finished.add(name);
    return null;
  };
  for (const name of modules.keys()) {
    const cycle = visit(name, []);
    if (cycle !== null) return cycle;
  }
  return null;
}
