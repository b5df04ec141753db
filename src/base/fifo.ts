/** A queue whose first is taken without moving all others, as array.shift does: views bring ten thousands at once. */

/** Room of what was taken is given back when it is more than this, and more than half of all. */
const TAKEN_MAX = 1_024;

export class Fifo<T> {
  private items: T[] = [];
  private head = 0;

  get isEmpty(): boolean {
    return this.head === this.items.length;
  }

  get size(): number {
    return this.items.length - this.head;
  }

  put(item: T): void {
    this.items.push(item);
  }

  /** The oldest; undefined: there is none. */
  take(): T | undefined {
    if (this.isEmpty) return undefined;
    const item = this.items[this.head++];
    if (this.isEmpty || (this.head > TAKEN_MAX && 2 * this.head > this.items.length)) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
    return item;
  }
}
