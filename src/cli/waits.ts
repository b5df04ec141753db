/**
 * `smbpool waits`: who waits too long, for whom, and who holds everybody up: the dead, the stuck, and circles. The text
 * is made by a pure function, which tests compare with golden files.
 */
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type { LocksAnswer, WaitReport } from '../wire/locks.js';
import { addAdminOptions, adminSocket, ask } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { clientWords, incompleteText, numberParser, pathWords, processWords } from './lock-options.js';
import { duration, printable } from './text.js';
import { longest, waitGraph } from './wait-graph.js';
import type { WaitGraph, WaitNode } from './wait-graph.js';

/** Longer than any wait of a healthy pool in which no client has to be asked. */
const LONGER_MS_DEFAULT = 1000;
const LONGER_MS_MAX = 86_400_000;
/** Nobody reads more; --json has all. */
const LINES_MAX = 500;
/** A chain deeper than this is told by its first links. */
const DEPTH_MAX = 30;
const INDENT = '  ';

interface WaitsOptions extends AdminOptions {
  longer: number;
  json?: true;
}

export function registerWaits(program: Command): void {
  const bound = numberParser({ min: 0, max: LONGER_MS_MAX });
  const command = program
    .command('waits')
    .description('who waits longer than a bound, for whom, and who holds them up, in the whole pool')
    .option('--longer <milliseconds>', 'show who has waited this long', bound, LONGER_MS_DEFAULT)
    .option('--json', 'waits, circles and holders as JSON');
  addAdminOptions(command).action(async (options: WaitsOptions) => {
    const answer = await ask<LocksAnswer>(adminSocket(options), ADMIN_PATH.locks);
    const micros = options.longer * 1000;
    process.stdout.write(options.json ? waitsJson(answer, micros) : waitsText(answer, micros));
  });
}

export function waitsJson(answer: LocksAnswer, longerMicros: number): string {
  const { nodes, over, cycles } = waitGraph(answer, longerMicros);
  const brief = ({ server, serverName, pid }: WaitNode): object => ({ server, serverName, pid });
  const holders = nodes
    .filter(({ waiters }) => waiters.length > 0)
    .map((node) => {
      const { user, client, clientName, holds, state, waits, waiters } = node;
      return {
        ...brief(node), user, client, clientName, holds, state, waitsItself: waits.length > 0,
        waiters: waiters.map(brief),
      };
    });
  const { missing, truncated } = answer;
  const circles = cycles.map((nodes) => nodes.map(brief));
  const report = { longerMicros, waits: over, holders, cycles: circles, missing, truncated };
  return `${JSON.stringify(report, null, 2)}\n`;
}

export function waitsText(answer: LocksAnswer, longerMicros: number): string {
  const graph = waitGraph(answer, longerMicros);
  const incomplete = incompleteText(answer);
  const { over } = graph;
  const bound = longerMicros === 0 ? '' : ` longer than ${duration(longerMicros)}`;
  if (over.length === 0) return `Nobody waits${bound}\n${incomplete}`;
  const heading = `${over.length} ${over.length === 1 ? 'waits' : 'wait'}${bound}\n${incomplete}`;
  const sections = [heading, culpritText(graph), cycleText(graph), new Tree(graph).text()];
  return sections.filter((text) => text !== '').join('\n');
}

function culpritText({ nodes }: WaitGraph): string {
  const lines = nodes
    .filter(({ state }) => state !== 'alive')
    .sort((a, b) => b.waiters.length - a.waiters.length)
    .map((node) => `${INDENT}${nodeWords(node)}: ${stateWords(node)}; ${node.holds.map(printable).join(', ')}\n`);
  return lines.length === 0 ? '' : `Dead or stuck\n${lines.join('')}`;
}

function stateWords({ state, pid, waiters }: WaitNode): string {
  const count = `${waiters.length} ${waiters.length === 1 ? 'waits' : 'wait'} for it`;
  if (state === 'stuck') return `its client does not answer the break, ${count}`;
  return `${pid === 0 ? 'not heard of' : 'dead or stuck'}, ${count}`;
}

function cycleText({ cycles }: WaitGraph): string {
  const lines = cycles.map((nodes) => {
    const [first] = nodes;
    const names = [...nodes, ...(first === undefined ? [] : [first])].map(processWords);
    return `${INDENT}${names.join(' waits for ')}\n`;
  });
  return lines.length === 0 ? '' : `Waiting in a circle\n${lines.join('')}`;
}

/** 'beta pid 2302, OFFICE\bob at 10.0.0.52:50200'. */
function nodeWords(node: WaitNode): string {
  const isKnown = node.user !== '' || node.client !== '';
  return isKnown ? `${processWords(node)}, ${printable(node.user)} at ${clientWords(node)}` : processWords(node);
}

/** Those who wait for nobody first, below each those who wait for it, and so on. */
class Tree {
  private readonly lines: string[] = [];
  private readonly shown = new Set<WaitNode>();
  private left = 0;

  constructor(private readonly graph: WaitGraph) {}

  text(): string {
    const { nodes, cycles, own, unknown } = this.graph;
    const held = nodes.filter(({ waits, waiters }) => waits.length === 0 && waiters.length > 0);
    for (const root of held.sort((a, b) => reach(b) - reach(a))) this.addRoot(root);
    // who is left waits in a circle, or for one
    for (const [root] of cycles) if (root !== undefined && !this.shown.has(root)) this.addRoot(root);
    this.addGroup('themselves, by another handle', own);
    this.addGroup('not known by whom', unknown);
    if (this.left > 0) this.lines.push(`... ${this.left} lines more; --json has all`);
    return `Held up by\n${this.lines.map((line) => `${INDENT}${line}\n`).join('')}`;
  }

  private addRoot(root: WaitNode): void {
    const holds = root.holds.length === 0 ? '' : `: ${root.holds.map(printable).join(', ')}`;
    const state = root.state === 'alive' ? '' : `  ${root.state.toUpperCase()}`;
    this.add(`${nodeWords(root)}${holds}${state}`);
    this.addWaiters(root, 1);
  }

  private addGroup(title: string, waits: readonly WaitReport[]): void {
    if (waits.length > 0) this.add(title);
    for (const wait of waits) this.add(`${INDENT}${waiterWords(wait)}: ${waitWords(wait)}`);
  }

  private addWaiters(holder: WaitNode, depth: number): void {
    this.shown.add(holder);
    for (const waiter of holder.waiters) {
      const waits = waiter.waits.filter(({ waitsFor }) => waitsFor.some((to) => isSame(to, holder)));
      const again = this.shown.has(waiter) && waiter.waiters.length > 0;
      const note = again ? '  (see above)' : '';
      for (const wait of waits) this.add(`${INDENT.repeat(depth)}${nodeWords(waiter)}: ${waitWords(wait)}${note}`);
      if (again || waiter.waiters.length === 0) continue;
      if (depth < DEPTH_MAX) this.addWaiters(waiter, depth + 1);
      else this.add(`${INDENT.repeat(depth + 1)}...`);
    }
  }

  private add(line: string): void {
    if (this.lines.length < LINES_MAX) this.lines.push(line);
    else this.left += 1;
  }
}

function isSame(a: { server: number; pid: number }, b: { server: number; pid: number }): boolean {
  return a.server === b.server && a.pid === b.pid;
}

/** The longest wait for a node, which orders the roots. */
function reach({ waiters }: WaitNode): number {
  return Math.max(0, ...waiters.map(longest));
}

function waiterWords(wait: WaitReport): string {
  return `${processWords(wait)}, ${printable(wait.user)} at ${clientWords(wait)}`;
}

/** '12 s for a break: docs/report.odt, open, read write'. */
function waitWords({ waitMicros, what, path, wants }: WaitReport): string {
  const words = { records: 'for records', break: 'for a break', range: 'for a range' }[what];
  return `waits ${duration(waitMicros)} ${words} of ${pathWords(path)} (${printable(wants)})`;
}
