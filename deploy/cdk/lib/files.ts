/*
 * What is made from the model and committed, as names and texts.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, type Built } from './app';
import { type Config } from './config';
import { serviceTask } from './container';
import { diagram } from './diagram';
import { ENVIRONMENTS } from './environments';
import { PARAMETERS, type ParameterName } from './parameters';

export type Template = {
  Resources: Record<string, {
    Type: string; Properties?: any; DependsOn?: string | string[];
    DeletionPolicy?: string; UpdateReplacePolicy?: string;
  }>;
  Parameters?: Record<string, any>;
  Outputs?: Record<string, any>;
  Transform?: string;
};

/** Indented by one: templates have a limit of 51,200 bytes. */
export function print(value: unknown): string {
  return JSON.stringify(value, null, 1) + '\n';
}

export function templates(built: Built): Map<string, Template> {
  const assembly = built.app.synth();
  return new Map(built.stacks.map((stack) => [stack.node.id, JSON.parse(
    readFileSync(join(assembly.directory, stack.templateFile), 'utf8'))]));
}

/** Parameters of all stacks: what the config knows, and blanks to fill in. */
function parameters(config: Config, all: Iterable<Template>): unknown {
  const names = new Set<string>();
  for (const template of all)
    for (const name of Object.keys(template.Parameters ?? {}))
      names.add(name);
  return [...names].sort().map((name) => ({
    ParameterKey: name,
    ParameterValue: name === 'CpuArchitecture' ? config.architecture
      : `FILL IN: ${PARAMETERS[name as ParameterName].description}`,
  }));
}

export function taskFile(config: Config): unknown {
  return serviceTask(config, {
    account: '<ACCOUNT>', region: '<REGION>', digest: '<DIGEST>',
    partition: 'aws', urlSuffix: 'amazonaws.com',
    architecture: config.architecture,
  });
}

export function files(outdir: string): Map<string, string> {
  const out = new Map<string, string>();
  for (const config of ENVIRONMENTS) {
    const name = config.environment;
    const made = templates(build(config, join(outdir, name), true));
    for (const [id, template] of made)
      out.set(`cfn/${name}/${id}.json`, print(template));
    out.set(`cfn/${name}/parameters.json`,
      print(parameters(config, made.values())));
    const task = JSON.stringify(taskFile(config), null, 2) + '\n';
    out.set(`cfn/${name}/taskdef.json`, task);
    if (name === 'production') {
      out.set('taskdef.json', task);
      out.set('architecture.svg', diagram(config));
    }
  }
  return out;
}
