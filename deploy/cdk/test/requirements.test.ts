/*
 * Every requirement, on every environment, and on one with all switches on.
 */
import test from 'node:test';
import { ENVIRONMENTS, EVERYTHING } from '../lib/environments';
import { CHECKS } from './checks';
import { model } from './model';

for (const config of [...ENVIRONMENTS, EVERYTHING]) {
  const made = model(config);
  for (const { name, run } of CHECKS)
    test(`${config.environment}: ${name}`, () => run(made));
}
