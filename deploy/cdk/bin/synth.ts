/*
 * Synthesize every environment; write what is committed, or compare with it.
 *
 *   node build/bin/synth.js [--write FOLDER | --compare FOLDER]
 *
 * FOLDER is deploy/: cfn/ENVIRONMENT/{STACK,parameters}.json, taskdef.json and
 * architecture.svg.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { warnings } from '../lib/config';
import { ENVIRONMENTS } from '../lib/environments';
import { files } from '../lib/files';

const [mode, folder] = process.argv.slice(2);
let differences = 0;

for (const config of ENVIRONMENTS)
  for (const text of warnings(config))
    console.error(`${config.environment}: warning: ${text}`);

for (const [name, text] of files(process.env['CDK_OUTDIR'] ?? 'cdk.out')) {
  if (folder === undefined)
    continue;
  const path = join(folder, name);
  if (mode === '--write') {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  } else if (!existsSync(path) || readFileSync(path, 'utf8') !== text) {
    console.error(`${path}: differs; run "npm run synth" in deploy/cdk`);
    differences++;
  }
}
if (differences > 0)
  process.exitCode = 1;
