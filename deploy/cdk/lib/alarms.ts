/*
 * Alarms have fixed names, so that deployment groups, the composite alarm and
 * scripts can name them.  No data is no breach: a service without requests is
 * not ill.
 */
import * as cloudwatch from 'aws-cdk-lib/aws-cloudwatch';
import type { BooksStack } from './stack';

export interface AlarmSpec {
  readonly namespace: string;
  readonly metricName: string;
  readonly dimensions: Record<string, string>;
  readonly threshold: number;
  readonly above: boolean;
  readonly statistic?: string;
  readonly extendedStatistic?: string;
  readonly periods: number;
  readonly periodSeconds?: number;
}

export function alarmName(stack: BooksStack, id: string): string {
  return stack.named(id.replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase());
}

export function alarm(
  stack: BooksStack, id: string, spec: AlarmSpec): cloudwatch.CfnAlarm {
  return new cloudwatch.CfnAlarm(stack, id, {
    alarmName: alarmName(stack, id),
    namespace: spec.namespace,
    metricName: spec.metricName,
    dimensions: Object.entries(spec.dimensions)
      .map(([name, value]) => ({ name, value })),
    ...(spec.extendedStatistic !== undefined
      ? { extendedStatistic: spec.extendedStatistic }
      : { statistic: spec.statistic ?? 'Sum' }),
    period: spec.periodSeconds ?? 60,
    evaluationPeriods: spec.periods,
    threshold: spec.threshold,
    comparisonOperator: spec.above
      ? 'GreaterThanThreshold' : 'LessThanThreshold',
    treatMissingData: 'notBreaching',
  });
}

/** Of all stacks, for the composite alarm: by name, not by reference. */
export const DATABASE_ALARMS = [
  'DatabaseCpu', 'DatabaseStorage', 'DatabaseMemory', 'DatabaseConnections',
];
export const SERVICE_ALARMS = ['Blue', 'Green'].flatMap((colour) =>
  ['Errors', 'Slow', 'Unhealthy'].map((what) => colour + what));
