/**
 * Which opens, waits and events a person means who names a path, a user, a client or a share: one rule for the daemon,
 * which filters live, and for the command line, which filters what was recorded. Pure; knows nothing of SMB.
 */

/** What is compared; `shareRoot` is the share's directory on its server, absent or '' when unknown. */
export interface LockTexts {
  path: string;
  user: string;
  client: string;
  clientName: string;
  share: string;
  shareRoot?: string;
}

/** What is wanted: absent matches everything. */
export interface LockTextsWanted {
  path?: string;
  user?: string;
  client?: string;
  share?: string;
}

/**
 * The test for a filter; prepares it once, as it is asked for each event. Compares without case:
 * - path: the path below the share's root, or absolute on the server; a directory means all below it, a file its
 *   streams too. `\` counts as `/`.
 * - user: with or without its domain.
 * - client: its name, or its address with or without the port.
 */
export function lockMatcher(wanted: LockTextsWanted): (texts: LockTexts) => boolean {
  const { path, user, client, share } = wanted;
  const tests: ((texts: LockTexts) => boolean)[] = [];
  if (path !== undefined) tests.push(pathTest(path));
  if (user !== undefined) {
    const name = user.toLowerCase();
    tests.push((texts) => isUser(texts.user.toLowerCase(), name));
  }
  if (client !== undefined) {
    const name = client.toLowerCase();
    tests.push((texts) => texts.clientName.toLowerCase() === name || isAddress(texts.client.toLowerCase(), name));
  }
  if (share !== undefined) {
    const name = share.toLowerCase();
    tests.push((texts) => texts.share.toLowerCase() === name);
  }
  return (texts) => tests.every((passes) => passes(texts));
}

function pathTest(path: string): (texts: LockTexts) => boolean {
  const wanted = plainPath(path);
  const isAbsolute = path.startsWith('/');
  return (texts) => {
    if (isAtOrBelow(plainPath(texts.path), wanted)) return true;
    const root = texts.shareRoot ?? '';
    return isAbsolute && root !== '' && isAtOrBelow(plainPath(`${root}/${texts.path}`), wanted);
  };
}

/** In lower case, with `/`, without `.` and empty parts. */
function plainPath(path: string): string {
  const parts = path.toLowerCase().replaceAll('\\', '/').split('/');
  return parts.filter((part) => part !== '' && part !== '.').join('/');
}

function isAtOrBelow(path: string, wanted: string): boolean {
  if (wanted === '' || path === wanted) return true;
  return path.startsWith(wanted) && (path[wanted.length] === '/' || path[wanted.length] === ':');
}

function isUser(user: string, wanted: string): boolean {
  return user === wanted || user.slice(user.lastIndexOf('\\') + 1) === wanted;
}

/** Samba writes `ipv4:10.0.0.5:50123`, others `10.0.0.5:50123` or `[fe80::1]:50123`. */
function isAddress(address: string, wanted: string): boolean {
  const bare = address.replace(/^ipv[46]:/, '');
  const alone = bare.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return address === wanted || bare === wanted || alone === wanted;
}
