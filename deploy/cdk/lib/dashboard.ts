/*
 * One page: what the clients see above, what booksd says of itself in its
 * embedded metrics in the middle, what it stands on below.
 */
import { Aws } from 'aws-cdk-lib';
import { EMF } from './container';
import { busyDimensions } from './service';
import type { BooksStack } from './stack';

type Metric = (string | Record<string, string>)[];

const WIDTH = 8;
const HEIGHT = 6;

export function dashboard(stack: BooksStack) {
  const own = busyDimensions(stack).flatMap(({ name, value }) =>
    [name, value]);
  const emf = (metric: string, stat = 'Average'): Metric =>
    [EMF.namespace, metric, ...own, { stat }];
  const ecs = (metric: string): Metric => ['AWS/ECS', metric, 'ClusterName',
    stack.config.prefix, 'ServiceName', stack.named('service')];
  const rds = (metric: string): Metric =>
    ['AWS/RDS', metric, 'DBInstanceIdentifier', stack.config.prefix];
  const gateway = (metric: string, stat: string): Metric =>
    ['AWS/ApiGateway', metric, 'ApiName', stack.config.prefix, { stat }];

  const pages: [string, Metric[]][] = [
    ['Requests and errors of clients', [gateway('Count', 'Sum'),
      gateway('4XXError', 'Sum'), gateway('5XXError', 'Sum')]],
    ['Latency of clients', [gateway('Latency', 'p50'),
      gateway('Latency', 'p99'), gateway('IntegrationLatency', 'p99')]],
    ['Busy event loops, %', [emf(EMF.busy), emf(EMF.busy, 'Maximum')]],
    ['Requests that booksd answered', [emf('Requests', 'Sum'),
      emf('Errors5xx', 'Sum')]],
    ['Latency of booksd, ms', [emf('LatencyP50'), emf('LatencyP99', 'Maximum')]],
    ['Cache hits, %; requests per CPU second', [emf('CacheHitRatio'),
      emf('RequestsPerCpuSecond')]],
    ['Tasks', [ecs('CPUUtilization'), ecs('MemoryUtilization')]],
    ['Database', [rds('CPUUtilization'), rds('DatabaseConnections'),
      emf('DatabaseP99', 'Maximum')]],
    ['Storage of the database', [rds('FreeStorageSpace'),
      rds('ReadLatency'), rds('WriteLatency')]],
  ];
  return {
    widgets: pages.map(([title, metrics], index) => ({
      type: 'metric',
      x: (index % 3) * WIDTH,
      y: Math.floor(index / 3) * HEIGHT,
      width: WIDTH,
      height: HEIGHT,
      properties: { title, metrics, region: Aws.REGION, period: 60 },
    })),
  };
}
