/*
 * A requirement is a name and a function that throws.  They are values and
 * not tests, because the mutations run them all again.
 */
import type { Model } from './model';

export interface Check {
  readonly name: string;
  readonly run: (model: Model) => void | Promise<void>;
}

export function check(name: string, run: Check['run']): Check {
  return { name, run };
}
