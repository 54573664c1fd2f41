/*
 * What an environment is, in one type, and what it must not be.
 *
 * Values that belong to an account (certificate, digest, zones, ids of a chat
 * workspace, repository) are no part of it: they are parameters of the
 * templates, so that the same templates serve any account.
 */

export interface Config {
  /** Folder of the templates, and how people call it. */
  readonly environment: string;
  /** First part of all fixed names. */
  readonly prefix: string;
  /** Production refuses what a demonstration may do. */
  readonly production: boolean;
  readonly architecture: 'ARM64' | 'X86_64';
  readonly vpcCidr: string;
  readonly database: DatabaseConfig;
  readonly task: TaskConfig;
  readonly scaling: ScalingConfig;
  readonly api: ApiConfig;
  /** An inline function that looks at the green tasks before any traffic. */
  readonly hook: boolean;
  /** ECS Exec: needs writable volumes; not proven outside an account. */
  readonly exec: boolean;
  /** A host with an address of its own; SSH from one configured network. */
  readonly bastion: boolean;
  /** The account's GitHub OIDC provider: there can be only one. */
  readonly oidcProvider: 'create' | 'existing';
  /** A monthly amount in USD above which a mail is sent; 0: none. */
  readonly budget: number;
}

export interface DatabaseConfig {
  /** Only the major number: RDS picks the newest minor one. */
  readonly engineMajor: number;
  readonly instanceClass: string;
  readonly storageGib: number;
  readonly multiAz: boolean;
  readonly backupDays: number;
  readonly maxConnections: number;
}

export interface TaskConfig {
  readonly cpu: number;
  readonly memory: number;
  /** Connections to the database of one task, with the listening one. */
  readonly connections: number;
  /**
   * ALB to task.  Fixed when the service is created: a service deployed by
   * CodeDeploy refuses other target groups.
   */
  readonly protocol: 'http' | 'https';
  /**
   * injected: ECS puts user and password into the environment when the task
   * starts.  client: booksd asks Secrets Manager itself, also after rotation.
   */
  readonly secret: 'injected' | 'client';
  readonly stopTimeout: number;
  readonly drainTimeout: number;
  readonly drainDelay: number;
}

export interface ScalingConfig {
  readonly min: number;
  readonly max: number;
  /** Per cent. */
  readonly cpu: number;
  /** Per cent of the event loops' time, the mean of the workers. */
  readonly busy: number;
  /** Requests a second that one task serves at these targets: measured. */
  readonly requestsPerTask: number;
}

export interface ApiConfig {
  /** v1: REST API, VPC link, NLB, ALB.  v2: REST API, VPC link V2, ALB. */
  readonly link: 'v1' | 'v2';
  /** imported: made by import-certificate; the gateway does not verify it. */
  readonly certificate: 'issued' | 'imported';
  readonly rate: number;
  readonly burst: number;
  /** Usage plan and key; drop-in clients have no key. */
  readonly keys: boolean;
  readonly cognito: boolean;
  readonly domain: boolean;
  /** AWS::ApiGateway::Account: one per region, kept when the stack goes. */
  readonly accountRole: boolean;
}

/** Connections that PostgreSQL and RDS keep for themselves, and people use. */
export const CONNECTIONS_RESERVED = 15;
/** What the gateway admits in a region before one asks for more. */
export const GATEWAY_RATE_MAX = 10_000;
const STOP_TIMEOUT_MAX = 120; /* Fargate */

type Rule = readonly [why: string, broken: (c: Config) => boolean];

const RULES: readonly Rule[] = [
  ['prefix: 3 to 20 of a-z, 0-9 and -',
    (c) => !/^[a-z][a-z0-9-]{1,18}[a-z0-9]$/.test(c.prefix)],
  ['vpcCidr: a /16', (c) => !/^\d+\.\d+\.0\.0\/16$/.test(c.vpcCidr)],
  ['database.engineMajor: 15 or newer',
    (c) => !Number.isInteger(c.database.engineMajor) ||
      c.database.engineMajor < 15],
  ['database.maxConnections: blue and green of max tasks must fit',
    (c) => connectionsWorst(c) > c.database.maxConnections],
  ['scaling: 0 < min <= max',
    (c) => c.scaling.min < 1 || c.scaling.max < c.scaling.min],
  ['scaling: targets are per cents',
    (c) => [c.scaling.cpu, c.scaling.busy].some((t) => t < 10 || t > 95)],
  ['task.stopTimeout: longer than the drain and at most 120',
    (c) => c.task.stopTimeout <= c.task.drainTimeout ||
      c.task.stopTimeout > STOP_TIMEOUT_MAX],
  ['task.drainDelay: shorter than task.drainTimeout',
    (c) => c.task.drainDelay >= c.task.drainTimeout],
  ['api.rate: admits what max tasks serve',
    (c) => c.api.rate < Math.min(capacity(c), GATEWAY_RATE_MAX)],
  ['api.burst: at least api.rate', (c) => c.api.burst < c.api.rate],
  ['production: an issued certificate',
    (c) => c.production && c.api.certificate !== 'issued'],
  ['production: a database in two zones',
    (c) => c.production && !c.database.multiAz],
  ['production: backups of 7 days or more',
    (c) => c.production && c.database.backupDays < 7],
  ['production: two tasks or more',
    (c) => c.production && c.scaling.min < 2],
];

/** Blue and green tasks at once, at the top of the scaling. */
export function connectionsWorst(config: Config): number {
  return config.scaling.max * 2 * config.task.connections +
    CONNECTIONS_RESERVED;
}

/** Requests a second. */
export function capacity(config: Config): number {
  return config.scaling.max * config.scaling.requestsPerTask;
}

/** All complaints, not only the first. */
export function complaints(config: Config): string[] {
  return RULES.filter(([, broken]) => broken(config)).map(([why]) => why);
}

export function validate(config: Config): Config {
  const found = complaints(config);
  if (found.length > 0)
    throw new Error(`${config.environment}: ${found.join('; ')}`);
  return config;
}

/** What is allowed but should be read by somebody. */
export function warnings(config: Config): string[] {
  const out: string[] = [];
  if (config.task.protocol === 'http')
    out.push('task.protocol is http: the hop from the ALB to the task is not ' +
      'encrypted');
  if (config.task.secret === 'injected')
    out.push('task.secret is injected: a task keeps the password it started ' +
      'with, so deploy after each rotation');
  if (config.exec)
    out.push('exec is on: ECS Exec on a read-only root is not proven ' +
      'outside an account');
  return out;
}

/** The parts of the middle and both zones' networks: six /19. */
export function subnetCidr(
  config: Config, tier: 'edge' | 'app' | 'data', zone: 0 | 1): string {
  const third = ['edge', 'app', 'data'].indexOf(tier) * 32 + zone * 96;
  return config.vpcCidr.replace('.0.0/16', `.${third}.0/19`);
}
