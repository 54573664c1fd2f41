/*
 * A synthesized environment, and what its references stand for.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from '../lib/app';
import type { Config } from '../lib/config';
import { type Template, templates } from '../lib/files';

export interface Model {
  readonly config: Config;
  readonly stacks: Record<string, Template>;
}

export interface Found {
  readonly stack: string;
  readonly id: string;
  readonly resource: Template['Resources'][string];
  /** Its properties, with every reference resolved. */
  readonly props: any;
}

export const ACCOUNT = '123456789012';
export const REGION = 'us-east-1';

const PSEUDO: Record<string, string> = {
  'AWS::AccountId': ACCOUNT, 'AWS::Region': REGION, 'AWS::Partition': 'aws',
  'AWS::URLSuffix': 'amazonaws.com',
};

export function model(config: Config): Model {
  const outdir = mkdtempSync(join(tmpdir(), 'books-cdk-'));
  return {
    config,
    stacks: Object.fromEntries(templates(build(config, outdir, false))),
  };
}

export function clone(from: Model): Model {
  return { config: from.config, stacks: structuredClone(from.stacks) };
}

function arnOf(model: Model, stack: string, id: string): string {
  const { Type: type, Properties: props = {} } =
    model.stacks[stack].Resources[id];
  const made = (service: string, what: string): string =>
    `arn:aws:${service}:${REGION}:${ACCOUNT}:${what}`;
  switch (type) {
    case 'AWS::SecretsManager::Secret':
      return made('secretsmanager', `secret:${props.Name}-AbCdEf`);
    case 'AWS::KMS::Key':
      return made('kms', `key/${stack}${id}`);
    case 'AWS::SNS::Topic':
      return made('sns', props.TopicName);
    default:
      return `${stack}.${id}`;
  }
}

function reference(model: Model, stack: string, name: string): unknown {
  if (PSEUDO[name] !== undefined)
    return PSEUDO[name];
  const parameter = model.stacks[stack].Parameters?.[name];
  if (parameter !== undefined)
    return `<${name}>`;
  return arnOf(model, stack, name);
}

function attribute(
  model: Model, stack: string, [id, name]: [string, string]): string {
  if (name === 'MasterUserSecret.SecretArn')
    return `arn:aws:secretsmanager:${REGION}:${ACCOUNT}:` +
      'secret:rds!db-1234-AbCdEf';
  if (name === 'Arn')
    return arnOf(model, stack, id);
  // Of a group the id, of others what they are.
  return name === 'GroupId' ? `${stack}.${id}` : `${stack}.${id}.${name}`;
}

function imported(model: Model, name: string): unknown {
  for (const [stack, template] of Object.entries(model.stacks))
    for (const output of Object.values(template.Outputs ?? {}))
      if (output.Export?.Name === name)
        return resolve(model, stack, output.Value);
  throw new Error(`nothing exports ${name}`);
}

export function resolve(model: Model, stack: string, value: any): any {
  const again = (inner: any): any => resolve(model, stack, inner);
  if (Array.isArray(value))
    return value.map(again);
  if (value === null || typeof value !== 'object')
    return value;
  if ('Ref' in value)
    return reference(model, stack, value.Ref);
  if ('Fn::GetAtt' in value)
    return attribute(model, stack, value['Fn::GetAtt']);
  if ('Fn::ImportValue' in value)
    return imported(model, value['Fn::ImportValue']);
  if ('Fn::Join' in value)
    return again(value['Fn::Join'][1]).join(value['Fn::Join'][0]);
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, again(inner)]));
}

/** All resources whose type ends so. */
export function all(model: Model, type: string, where?: string): Found[] {
  return Object.entries(model.stacks).flatMap(([stack, template]) =>
    where !== undefined && where !== stack ? [] :
      Object.entries(template.Resources)
        .filter(([, resource]) => resource.Type.endsWith(`::${type}`))
        .map(([id, resource]) => ({
          stack, id, resource,
          props: resolve(model, stack, resource.Properties ?? {}),
        })));
}

export function one(model: Model, stack: string, id: string): Found {
  const resource = model.stacks[stack]?.Resources[id];
  if (resource === undefined)
    throw new Error(`no ${stack}.${id}`);
  return {
    stack, id, resource,
    props: resolve(model, stack, resource.Properties ?? {}),
  };
}

/** What a role may do: its own policies. */
export function policies(found: Found): any[] {
  return (found.props.Policies ?? []).map((p: any) => p.PolicyDocument);
}

export function list<T>(value: T | T[] | undefined): T[] {
  return value === undefined ? [] : Array.isArray(value) ? value : [value];
}
