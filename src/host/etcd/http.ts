/** One endpoint of an etcd cluster: posts JSON over connections that are kept, and bounds what comes back. */
import http from 'node:http';
import https from 'node:https';

/** PEM, not paths. */
export interface EtcdTls {
  ca?: Buffer;
  cert?: Buffer;
  key?: Buffer;
}

/** A view has 1,340 bytes at most; what etcd says of itself some hundred. */
const ANSWER_BYTES_MAX = 64 * 1024;
/** A read and a swap, and what timed out and is not closed yet. */
const SOCKETS_MAX = 4;
const KEEP_ALIVE_MS = 10_000;

interface Answer {
  status: number;
  text: string;
}

export class EtcdEndpoint {
  private readonly agent: http.Agent;
  private readonly isTls: boolean;

  constructor(
    readonly url: string,
    tls: EtcdTls = {},
  ) {
    this.isTls = url.startsWith('https:');
    const options = { keepAlive: true, keepAliveMsecs: KEEP_ALIVE_MS, maxSockets: SOCKETS_MAX, noDelay: true };
    this.agent = this.isTls ? new https.Agent({ ...options, ...tls }) : new http.Agent(options);
  }

  /** The decoded answer. Rejects with a sentence that names the endpoint when there is none, or it is no success. */
  async post(path: string, body: string, signal: AbortSignal): Promise<unknown> {
    try {
      return decodeAnswer(await this.exchange(path, body, signal));
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException;
      // some errors of the network have no text but their code
      throw new Error(`${this.url}: ${message || code || 'no answer'}`, { cause: error });
    }
  }

  private exchange(path: string, body: string, signal: AbortSignal): Promise<Answer> {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const { agent } = this;
    return new Promise((resolve, reject) => {
      const asked = (this.isTls ? https : http).request(
        new URL(path, this.url),
        { method: 'POST', agent, headers, signal },
        (response) => {
          const parts: Buffer[] = [];
          let length = 0;
          response.on('data', (part: Buffer) => {
            length += part.length;
            if (length > ANSWER_BYTES_MAX) asked.destroy(new Error(`an answer of more than ${ANSWER_BYTES_MAX} bytes`));
            else parts.push(part);
          });
          response.on('error', reject);
          response.on('end', () => {
            resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() });
          });
        },
      );
      asked.on('error', reject);
      asked.end(body);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

function decodeAnswer({ status, text }: Answer): unknown {
  if (status === 200) return JSON.parse(text);
  throw new Error(`answers ${status}: ${sentenceIn(text).slice(0, 200)}`);
}

function sentenceIn(text: string): string {
  try {
    const { error, message } = JSON.parse(text) as { error?: unknown; message?: unknown };
    for (const why of [message, error]) if (typeof why === 'string') return why;
  } catch {
    // something that is no etcd answers in its own words
  }
  return text;
}
