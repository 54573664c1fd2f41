/*
 * An environment's stacks, in the order in which they are deployed.
 */
import { App, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';
import { acknowledge } from './acknowledgements';
import { ApiStack } from './api';
import { BastionStack } from './bastion';
import { type Config, warnings } from './config';
import { DataStack } from './data';
import { NetworkStack } from './network';
import { OpsStack } from './ops';
import { RegistryStack } from './registry';
import { RotationStack } from './rotation';
import { ServiceStack } from './service';
import type { BooksStack } from './stack';

/** Between them: an image after Registry, migrate after Data. */
export const ORDER = ['Registry', 'Network', 'Data', 'Rotation', 'Service',
  'Api', 'Ops', 'Bastion'] as const;

export interface Built {
  readonly config: Config;
  readonly app: App;
  readonly stacks: readonly BooksStack[];
}

export function build(config: Config, outdir: string, nag: boolean): Built {
  const app = new App({
    outdir,
    analyticsReporting: false,
    treeMetadata: false,
    context: {
      'aws:cdk:enable-path-metadata': false,
      'aws:cdk:enable-asset-metadata': false,
      'aws:cdk:disable-asset-staging': true,
      // A finding of the schema is an error, not a warning.
      '@aws-cdk/core:validateAgainstDefaultRules': true,
    },
  });
  const registry = new RegistryStack(app, config);
  const network = new NetworkStack(app, config);
  const data = new DataStack(app, config, network);
  const rotation = new RotationStack(app, config, network, data);
  const service = new ServiceStack(app, config, network, data);
  const api = new ApiStack(app, config, network, service);
  const ops = new OpsStack(app, config);
  const stacks: BooksStack[] =
    [registry, network, data, rotation, service, api, ops];
  if (config.bastion)
    stacks.push(new BastionStack(app, config, network));
  for (const text of warnings(config))
    Validations.of(service).addWarning('books:setting', text);
  if (nag)
    Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  acknowledge(stacks);
  return { config, app, stacks };
}
