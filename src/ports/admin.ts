/**
 * Where the daemon's configuration and its socket for people are found, and what that socket serves: JSON over HTTP on
 * a unix socket, mode 0600. Shared by the daemon, which serves it, and the command line, which asks.
 */

/** The configuration file that both smbpoold and smbpool read when none is named. */
export const CONFIG_FILE_DEFAULT = '/etc/smbpool/smbpool.yaml';

/** The daemon's socket for people when the configuration names none. */
export const ADMIN_SOCKET_DEFAULT = '/run/smbpool/admin.socket';

/** The daemon's page in shared memory when the configuration names none: beside its sockets. */
export const NODE_PAGE_NAME = 'node.page';

/**
 * The paths of the socket's HTTP server. `/status` answers a StatusReport, `/record?database=&key=` (key in
 * hexadecimal) a RecordDescription, `/counters` the counters alone, `/failovers` a FailoversReport, `/addresses` an
 * AddressReport of each public address, `/locks?path=&user=&client=&share=` a LocksAnswer, `/hot` a HotAnswer. `/trace`
 * takes the parameters of `/locks` and `ops` (kinds with commas between), and streams TraceEvents, one JSON text a
 * line, until the reader leaves. A POST to `/drain?server=&draining=` (true or false) drains a server or ends that.
 * A POST to `/join?name=&id=&role=&address=&interface=&address2=&interface2=` (name and address must be there) or to
 * `/leave?server=` changes the pool's servers, and answers a ServersReport when that is agreed.
 * Anything else, and every refusal, answers an AdminError.
 */
export const ADMIN_PATH = {
  status: '/status',
  record: '/record',
  counters: '/counters',
  locks: '/locks',
  trace: '/trace',
  hot: '/hot',
  failovers: '/failovers',
  addresses: '/addresses',
  drain: '/drain',
  join: '/join',
  leave: '/leave',
} as const;

/** The body of every answer whose HTTP status is not 200. */
export interface AdminError {
  error: string;
}

/** The longest record key a query may name: libtdb's and SMB's keys are far shorter, and it bounds the URL. */
export const RECORD_KEY_BYTES_MAX = 4096;

/** The longest text of a lock filter: Linux's longest path. It bounds the URL, too. */
export const FILTER_TEXT_BYTES_MAX = 4096;
