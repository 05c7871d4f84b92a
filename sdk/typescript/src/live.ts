/** The text shown of a step that may not be committed yet. Pure. */

import type { TokenEvent } from "./data.js";

export class Live {
  readonly step: number;
  readonly attempt: string;
  /** Tokens up to here were shown, and where in the text the token of an offset begins. */
  #end = 0;
  #text = "";
  readonly #marks = new Map<number, number>();

  constructor(step: number, attempt: string) {
    this.step = step;
    this.attempt = attempt;
  }

  is(step: number, attempt: string): boolean {
    return this.step === step && this.attempt === attempt;
  }

  /** What of the chunk is new; undefined when it disagrees with what was shown. */
  add(event: TokenEvent): TokenEvent[] | undefined {
    const end = event.offset + event.tokens;
    if (event.offset >= this.#end) {
      this.#push(event.offset, end, event.text);
      return event.text ? [event] : [];
    }
    const rest = this.#unseen(event.offset, end, event.text);
    if (rest === undefined) return undefined;
    const begin = this.#end;
    if (rest === "" || end < begin) return [];
    this.#push(begin, end, rest);
    return [{ ...event, offset: begin, tokens: end - begin, text: rest }];
  }

  #push(offset: number, end: number, text: string): void {
    this.#marks.set(offset, this.#text.length);
    this.#text += text;
    this.#marks.set(end, this.#text.length);
    this.#end = end;
  }

  /** The part of a chunk beyond what was shown; undefined when both disagree. */
  #unseen(offset: number, end: number, text: string): string | undefined {
    const begin = this.#marks.get(offset);
    // It begins inside one of ours, as of no node that begins at 0: they meet where the texts overlap most.
    if (begin === undefined) return text.slice(overlap(this.#text, text));
    const shown = this.#text.slice(begin);
    if (text.startsWith(shown)) return text.slice(shown.length);
    if (!shown.startsWith(text)) return undefined;
    // Its end is where the node's next chunk begins. Where words repeat, the texts alone could not tell that place.
    this.#marks.set(end, begin + text.length);
    return "";
  }
}

/** The longest beginning of `text` that `shown` ends with. */
function overlap(shown: string, text: string): number {
  let cut = text.length;
  while (!shown.endsWith(text.slice(0, cut))) cut -= 1;
  return cut;
}
