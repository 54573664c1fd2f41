/*
 * The task, in one place: the template's task definitions and the files
 * deploy/taskdef.json of each environment are made from it.
 */
import type { Config } from './config';
import { taskPort } from './hops';

/** What differs between a template and a file for the scripts. */
export interface Place {
  readonly account: string;
  readonly region: string;
  readonly partition: string;
  readonly urlSuffix: string;
  readonly digest: string;
  readonly architecture: string;
}

export const USER = 10001;
const NOFILE = 65536;
const RDS_CA = '/etc/ssl/certs/rds.pem';

export const EMF = {
  namespace: 'AWSomeBooks',
  busy: 'BusyRatio',
  dimensions: ['Cluster', 'Service'],
} as const;

export function image(config: Config, place: Place): string {
  return `${place.account}.dkr.ecr.${place.region}.${place.urlSuffix}/` +
    `${config.prefix}@${place.digest}`;
}

type Pair = { name: string; value: string };

/* The name without the six characters behind it finds the secret, too. */
function fromSecret(arn: string, name: string, key: string) {
  return { name, valueFrom: `${arn}:${key}::` };
}

/* For booksctl; booksd has the same in one setting. */
function database(): Pair[] {
  return [
    { name: 'PGSSLMODE', value: 'verify-full' },
    { name: 'PGSSLROOTCERT', value: RDS_CA },
    { name: 'PGTARGETSESSIONATTRS', value: 'read-write' },
  ];
}

export function appSecretArn(config: Config, place: Place): string {
  return `arn:${place.partition}:secretsmanager:${place.region}:` +
    `${place.account}:secret:${config.prefix}/books_app`;
}

function settings(config: Config, place: Place): Pair[] {
  const { task } = config;
  const pairs: [string, string][] = [
    ['BOOKS_ACCESS_LOG', 'stdout'],
    ['BOOKS_CONTROL_SOCKET', '/run/booksd/control.sock'],
    ['BOOKS_DATABASE', `sslmode=verify-full sslrootcert=${RDS_CA} ` +
      'target_session_attrs=read-write'],
    ['BOOKS_DATABASE_CONNECTIONS', String(task.connections - 1)],
    ['BOOKS_DRAIN_DELAY', `${task.drainDelay}s`],
    ['BOOKS_DRAIN_TIMEOUT', `${task.drainTimeout}s`],
    ['BOOKS_ERROR_LOG', 'stderr'],
    ['BOOKS_LISTEN', `*:${taskPort(config)}`],
    ['BOOKS_LOG_FORMAT', 'json'],
    ['BOOKS_METRICS_EMF', '60s'],
    // The service's role may not change tables: the migrate task does.
    ['BOOKS_MIGRATE_ON_START', 'off'],
    ...(task.secret === 'client'
      ? [['BOOKS_DATABASE_SECRET', appSecretArn(config, place)] as
        [string, string]] : []),
  ];
  return pairs.map(([name, value]) => ({ name, value }));
}

/* Keys that a secret attached to an instance has. */
function injected(arn: string) {
  return [
    fromSecret(arn, 'PGHOST', 'host'),
    fromSecret(arn, 'PGPORT', 'port'),
    fromSecret(arn, 'PGDATABASE', 'dbname'),
    fromSecret(arn, 'PGUSER', 'username'),
    fromSecret(arn, 'PGPASSWORD', 'password'),
  ];
}

function logging(config: Config, place: Place, what: string) {
  return {
    logDriver: 'awslogs',
    options: {
      'awslogs-group': `/${config.prefix}/${what}`,
      'awslogs-region': place.region,
      'awslogs-stream-prefix': what,
      'mode': 'non-blocking',
      'max-buffer-size': '4m',
    },
  };
}

/* A place to write for the socket, and with ECS Exec for what it starts. */
export function writable(config: Config): [string, string][] {
  return [
    ['run', '/run/booksd'],
    ...(config.exec ? [
      ['exec', '/managed-agents'], ['ssm-lib', '/var/lib/amazon/ssm'],
      ['ssm-log', '/var/log/amazon/ssm'],
    ] as [string, string][] : []),
  ];
}

function container(config: Config, place: Place) {
  return {
    name: 'booksd',
    image: image(config, place),
    essential: true,
    user: `${USER}:${USER}`,
    readonlyRootFilesystem: true,
    linuxParameters: { capabilities: { drop: ['ALL'] } },
    stopTimeout: config.task.stopTimeout,
    portMappings: [{ containerPort: taskPort(config), protocol: 'tcp' }],
    ulimits: [{ name: 'nofile', softLimit: NOFILE, hardLimit: NOFILE }],
    environment: settings(config, place),
    ...(config.task.secret === 'injected'
      ? { secrets: injected(appSecretArn(config, place)) } : {}),
    mountPoints: writable(config).map(([sourceVolume, containerPath]) =>
      ({ sourceVolume, containerPath, readOnly: false })),
    logConfiguration: logging(config, place, 'task'),
    // ECS does not read the image's HEALTHCHECK.  Whether it is ready is the
    // load balancer's question: a task that waits must not be replaced.
    healthCheck: {
      command: ['CMD', '/usr/bin/booksctl', 'health', '--live'],
      interval: 10, timeout: 5, retries: 3, startPeriod: 15,
    },
  };
}

function task(config: Config, place: Place, roles: string) {
  const role = (name: string): string =>
    `arn:${place.partition}:iam::${place.account}:role/` +
    `${config.prefix}-${roles}${name}`;
  return {
    requiresCompatibilities: ['FARGATE'],
    networkMode: 'awsvpc',
    runtimePlatform: {
      cpuArchitecture: place.architecture, operatingSystemFamily: 'LINUX',
    },
    executionRoleArn: role('execution'),
    taskRoleArn: role('task'),
  };
}

export function serviceTask(config: Config, place: Place) {
  return {
    family: `${config.prefix}-task`,
    cpu: String(config.task.cpu),
    memory: String(config.task.memory),
    ...task(config, place, ''),
    volumes: writable(config).map(([name]) => ({ name })),
    containerDefinitions: [container(config, place)],
  };
}

/** Once, before a release: tables, with the master user's secret. */
export function migrateTask(
  config: Config, place: Place, master: string, host: string) {
  return {
    family: `${config.prefix}-migrate`,
    cpu: '256',
    memory: '512',
    ...task(config, place, 'migrate-'),
    containerDefinitions: [{
      name: 'migrate',
      image: image(config, place),
      essential: true,
      user: `${USER}:${USER}`,
      readonlyRootFilesystem: true,
      linuxParameters: { capabilities: { drop: ['ALL'] } },
      entryPoint: ['/usr/bin/booksctl'],
      command: ['migrate', '--wait=300'],
      environment: [
        ...database(),
        { name: 'PGDATABASE', value: DATABASE_NAME },
        { name: 'PGHOST', value: host },
        { name: 'PGPORT', value: '5432' },
      ],
      secrets: [
        // RDS's own secret has these two keys only.
        fromSecret(master, 'PGUSER', 'username'),
        fromSecret(master, 'PGPASSWORD', 'password'),
      ],
      logConfiguration: logging(config, place, 'migrate'),
    }],
  };
}

export const DATABASE_NAME = 'awsome_books';
