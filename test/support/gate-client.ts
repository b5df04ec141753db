/** A smbd's end of the client socket, of which it speaks what tests of whole hosts need. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** A stand-in for a smbd's connection: one request at a time. */
export class GateClient {
  private readonly socket: Socket;
  private received = Buffer.alloc(0);
  private waiting: ((packet: Buffer) => void) | null = null;

  constructor(t: TestContext, path: string) {
    this.socket = connect(path);
    t.after(() => this.socket.destroy());
    this.socket.on('data', (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes]);
      const length = this.received.length < 4 ? Infinity : this.received.readUInt32LE(0);
      if (this.received.length < length) return;
      const packet = this.received.subarray(0, length);
      this.received = this.received.subarray(length);
      this.waiting?.(packet);
    });
  }

  private request(operation: number, body: Buffer): Promise<Buffer> {
    const header = Buffer.alloc(32);
    header.writeUInt32LE(32 + body.length, 0);
    header.writeUInt32LE(0x4354_4442, 4);
    header.writeUInt32LE(1, 8);
    header.writeUInt32LE(operation, 16);
    header.writeUInt32LE(0xf000_0001, 20);
    header.writeUInt32LE(7, 28);
    return new Promise((resolve) => {
      this.waiting = resolve;
      this.socket.write(Buffer.concat([header, body]));
    });
  }

  /** REQ_CONTROL; answers status and data. */
  async control(opcode: number, data: Buffer): Promise<{ status: number; data: Buffer }> {
    const body = Buffer.alloc(28);
    body.writeUInt32LE(opcode, 0);
    body.writeUInt32LE(data.length, 24);
    const reply = await this.request(7, Buffer.concat([body, data]));
    assert.equal(reply.readUInt32LE(16), 8, 'REPLY_CONTROL');
    const length = reply.readUInt32LE(36);
    return { status: reply.readInt32LE(32), data: reply.subarray(44, 44 + length) };
  }

  attach(name: string): Promise<{ status: number; data: Buffer }> {
    return this.control(18, Buffer.from(`${name}\0`));
  }

  /** REQ_CALL that makes this server the record's owner. */
  async migrate(database: Buffer, key: Buffer): Promise<void> {
    const body = Buffer.alloc(24);
    body.writeUInt32LE(1, 0);
    database.copy(body, 4);
    body.writeUInt32LE(0xff00_0001, 8);
    body.writeUInt32LE(key.length, 16);
    const reply = await this.request(0, Buffer.concat([body, key]));
    assert.equal(reply.readUInt32LE(16), 1, 'REPLY_CALL');
  }
}
