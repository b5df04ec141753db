/** Numbers for requests under way, one sequence for the whole gate so that an answer finds its part. */
export class Tokens {
  private last = 0;

  next(): number {
    return ++this.last;
  }
}
