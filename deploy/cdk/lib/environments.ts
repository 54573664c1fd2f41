/*
 * Three examples: copy one, change it, name it in ENVIRONMENTS.
 */
import { type Config, validate } from './config';

const production: Config = {
  environment: 'production',
  prefix: 'awsome-books',
  production: true,
  architecture: 'ARM64',
  vpcCidr: '10.0.0.0/16',
  database: {
    engineMajor: 16,
    instanceClass: 'db.m7g.large',
    storageGib: 50,
    multiAz: true,
    backupDays: 14,
    maxConnections: 200,
  },
  task: {
    cpu: 1024,
    memory: 2048,
    connections: 5,
    protocol: 'http',
    secret: 'client',
    stopTimeout: 60,
    drainTimeout: 50,
    drainDelay: 5,
  },
  scaling: { min: 2, max: 4, cpu: 70, busy: 70, requestsPerTask: 2000 },
  api: {
    link: 'v1',
    certificate: 'issued',
    rate: 8000,
    burst: 8000,
    keys: false,
    cognito: false,
    domain: false,
    accountRole: true,
  },
  hook: true,
  exec: false,
  bastion: false,
  oidcProvider: 'create',
  budget: 0,
};

/* Everything once and small, for an afternoon. */
const demo: Config = {
  ...production,
  environment: 'demo',
  prefix: 'awsome-books-demo',
  production: false,
  database: {
    ...production.database,
    instanceClass: 'db.t4g.micro',
    storageGib: 20,
    multiAz: false,
    backupDays: 1,
    maxConnections: 80,
  },
  task: { ...production.task, cpu: 512, memory: 1024 },
  scaling: { min: 1, max: 2, cpu: 70, busy: 70, requestsPerTask: 1000 },
  api: {
    ...production.api,
    certificate: 'imported',
    rate: 2000,
    burst: 4000,
  },
  hook: false,
  budget: 200,
};

/* No NLB: the gateway reaches the ALB itself. */
const productionV2: Config = {
  ...production,
  environment: 'production-v2',
  api: { ...production.api, link: 'v2' },
};

export const ENVIRONMENTS: readonly Config[] =
  [demo, production, productionV2].map(validate);

/* Not committed as templates: every switch the other way, for the tests. */
export const EVERYTHING: Config = validate({
  ...production,
  environment: 'everything',
  task: { ...production.task, protocol: 'https', secret: 'injected' },
  api: { ...production.api, keys: true, cognito: true, domain: true },
  exec: true,
  bastion: true,
  oidcProvider: 'existing',
  budget: 500,
});
