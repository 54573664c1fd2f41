/*
 * What the configuration refuses and warns of, and what is made from it.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { build } from '../lib/app';
import {
  complaints, type Config, subnetCidr, validate, warnings,
} from '../lib/config';
import { EMF } from '../lib/container';
import { diagram } from '../lib/diagram';
import { ENVIRONMENTS, EVERYTHING } from '../lib/environments';
import { taskFile } from '../lib/files';
import { hops } from '../lib/hops';

const production = ENVIRONMENTS.find((c) => c.production)!;

function but(change: (c: any) => void): Config {
  const copy = structuredClone(production) as any;
  change(copy);
  return copy;
}

const REFUSED: [string, (c: any) => void][] = [
  ['prefix', (c) => { c.prefix = 'A'; }],
  ['vpcCidr', (c) => { c.vpcCidr = '10.0.0.0/8'; }],
  ['engineMajor', (c) => { c.database.engineMajor = 16.3; }],
  ['maxConnections', (c) => { c.scaling.max = 40; c.api.rate = 10000;
    c.api.burst = 10000; }],
  ['min <= max', (c) => { c.scaling.min = 5; }],
  ['per cents', (c) => { c.scaling.busy = 0.7; }],
  ['stopTimeout', (c) => { c.task.stopTimeout = 121; }],
  ['drainDelay', (c) => { c.task.drainDelay = 50; }],
  ['api.rate', (c) => { c.api.rate = 100; }],
  ['api.burst', (c) => { c.api.burst = 100; }],
  ['issued certificate', (c) => { c.api.certificate = 'imported'; }],
  ['two zones', (c) => { c.database.multiAz = false; }],
  ['backups', (c) => { c.database.backupDays = 1; }],
  ['two tasks', (c) => { c.scaling.min = 1; }],
];

for (const [word, change] of REFUSED)
  test(`refused: ${word}`, () => {
    const found = complaints(but(change));
    assert.equal(found.length, 1, found.join('; '));
    assert.ok(found[0]!.includes(word), found[0]);
    assert.throws(() => validate(but(change)));
  });

test('plain HTTP to the task is warned of, also in the synthesis', () => {
  assert.ok(warnings(production).some((w) => w.includes('not encrypted')));
  assert.ok(!warnings(EVERYTHING).some((w) => w.includes('not encrypted')));
  const built = build(production, mkdtempSync(join(tmpdir(), 'books-cdk-')),
    false);
  const messages = JSON.stringify(built.stacks.flatMap((stack) =>
    stack.node.metadata.map((entry) => entry.data)));
  assert.match(messages, /task\.protocol is http/);
});

test('six subnets share the network as the first design did', () => {
  assert.deepEqual(
    ([0, 1] as const).flatMap((zone) => (['edge', 'app', 'data'] as const)
      .map((tier) => subnetCidr(production, tier, zone))),
    [0, 32, 64, 96, 128, 160].map((third) => `10.0.${third}.0/19`));
});

test('the diagram shows every hop, and plain HTTP in red', () => {
  for (const config of [...ENVIRONMENTS, EVERYTHING]) {
    const svg = diagram(config);
    for (const hop of hops(config))
      assert.ok(svg.includes(
        `>${hop.port} ${hop.protocol}, ${hop.encryption}</text>`));
    assert.equal(svg.includes('url(#open)'), config.task.protocol === 'http');
  }
});

test('the task file has three placeholders', () => {
  const text = JSON.stringify(taskFile(production));
  assert.deepEqual([...new Set(text.match(/<[A-Z]+>/g))].sort(),
    ['<ACCOUNT>', '<DIGEST>', '<REGION>']);
});

const BOOKSD = process.env['BOOKSD'] ?? '';

function booksd(settings: Record<string, string>): string {
  const done = spawnSync(BOOKSD, ['-t'], {
    env: { PATH: process.env['PATH'], ...settings },
    encoding: 'utf8', timeout: 10_000,
  });
  return done.stderr + done.stdout;
}

test('booksd knows every setting of the task', (t) => {
  if (BOOKSD === '')
    return t.skip('no BOOKSD');
  for (const config of ENVIRONMENTS) {
    const [task] = (taskFile(config) as any).containerDefinitions;
    const said = booksd(Object.fromEntries(task.environment
      .filter(({ name }: any) => name.startsWith('BOOKS_'))
      .map(({ name, value }: any) => [name, value
        .replace('<ACCOUNT>', '123456789012')
        .replace('<REGION>', 'us-east-1')])));
    assert.doesNotMatch(said, /unknown|no setting|BOOKS_\w+:/i);
  }
});

/* Where booksd learns the names of its cluster and service. */
function metadata(): Promise<{ url: string; close: () => void }> {
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(request.url!.endsWith('/task') ? {
      Cluster: production.prefix, ServiceName: `${production.prefix}-service`,
      Family: `${production.prefix}-task`, Revision: '1',
      TaskARN: 'arn:aws:ecs:us-east-1:123456789012:task/awsome-books/1',
      Limits: { CPU: 1, Memory: 2048 },
    } : { Limits: { CPU: 1024, Memory: 2048 } }));
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v4/1`,
    close: () => server.close(),
  })));
}

/* The first line with the metric, of a booksd that has no database. */
async function metricLine(url: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'books-'));
  const child = spawn(BOOKSD, ['-f'], {
    env: {
      PATH: process.env['PATH'], ECS_CONTAINER_METADATA_URI_V4: url,
      BOOKS_METRICS_EMF: '1s', BOOKS_LISTEN: `unix:${join(folder, 's')}`,
      BOOKS_CONTROL_SOCKET: join(folder, 'control.sock'),
      BOOKS_ADMIN_LISTEN: 'off', BOOKS_CACHE_SIZE: '0', BOOKS_WORKERS: '1',
      BOOKS_DRAIN_DELAY: '0s',
      BOOKS_DATABASE: 'host=/nonexistent dbname=none',
      BOOKS_MIGRATE_ON_START: 'off', BOOKS_ACCESS_LOG: 'off',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk) => { said += chunk; });
  try {
    for await (const line of createInterface(child.stdout))
      if (line.includes('"_aws"') && line.includes(`"${EMF.busy}"`))
        return line;
    throw new Error(said);
  } finally {
    child.kill('SIGTERM');
  }
}

test('booksd\'s metric is the one that scaling follows', {
  timeout: 60_000,
}, async (t) => {
  if (BOOKSD === '')
    return t.skip('no BOOKSD');
  const { url, close } = await metadata();
  try {
    const emf = JSON.parse(await metricLine(url));
    const directive = emf._aws.CloudWatchMetrics.find((d: any) =>
      d.Metrics.some((m: any) => m.Name === EMF.busy));
    assert.equal(directive.Namespace, EMF.namespace);
    assert.deepEqual(directive.Dimensions, [[...EMF.dimensions]]);
    assert.equal(emf.Cluster, production.prefix);
    assert.equal(emf.Service, `${production.prefix}-service`);
    assert.ok(emf[EMF.busy] >= 0 && emf[EMF.busy] <= 100);
  } finally {
    close();
  }
});
