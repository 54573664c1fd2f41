/*
 * Findings of cdk-nag that stay, each with the reason.  A finding that is not
 * here fails the synthesis.
 */
import { Validations } from 'aws-cdk-lib';
import type { Config } from './config';
import type { BooksStack } from './stack';

type Finding = readonly [
  stack: string, construct: string, rule: string, reason: string,
  when?: (config: Config) => boolean];

const HERE = '<AWS::Region>:<AWS::AccountId>';
const IAM5 = 'AwsSolutions-IAM5';
const any = (resource: string): string => `${IAM5}[Resource::${resource}]`;
const arn = (service: string, resource: string): string =>
  any(`arn:<AWS::Partition>:${service}:${HERE}:${resource}`);

const STREAMS = 'Streams of one log group: their names are made at run time';
const NO_RESOURCE = 'These actions know no resource';
const NAMES = 'The names end in what AWS adds to them';
const ENVIRONMENT = 'Plain settings only; user and password come as secrets';
const demo = (config: Config): boolean => !config.production;
const exec = (config: Config): boolean => config.exec;
const hook = (config: Config): boolean => config.hook;

function deployers(): Finding[] {
  const both = (rule: string, reason: string): Finding[] =>
    ['ReleaseRole', 'RollbackRole'].map((construct) =>
      ['Registry', construct, rule, reason] as const);
  const release = (rule: string, reason: string): Finding =>
    ['Registry', 'ReleaseRole', rule, reason];
  return [
    ...both(any('*'), NO_RESOURCE),
    ...both(arn('codedeploy', 'deploymentconfig:*'),
      'To read the predefined configurations'),
    ...both(arn('application-autoscaling', 'scalable-target/*'),
      'Ids are made by AWS; conditions narrow it to counts of ECS'),
    release(arn('ecs', 'task-definition/PREFIX-migrate:*'),
      'Each release registers a revision of that one family'),
    release(arn('ecs', 'task/PREFIX/*'), 'Tasks of one cluster'),
    release(arn('cloudformation', 'stack/PREFIX-network/*'), NAMES),
    release(arn('cloudformation', 'stack/PREFIX-data/*'), NAMES),
  ];
}

const FINDINGS: readonly Finding[] = [
  ...deployers(),
  ['Data', 'MigrateExecution', any('*'), NO_RESOURCE],
  ['Data', 'MigrateExecution', arn('logs', 'log-group:/PREFIX/migrate:*'),
    STREAMS],
  ['Data', 'Migrate', 'AwsSolutions-ECS2', ENVIRONMENT],
  ['Data', 'Database', 'AwsSolutions-RDS3', 'A demonstration', demo],
  ['Data', 'Database', 'AwsSolutions-RDS10', 'A demonstration', demo],
  ['Data', 'Database', 'AwsSolutions-RDS11',
    'Nothing reaches the port but two groups; another one hides nothing'],
  ['Data', 'AppSecret', 'AwsSolutions-SMG4',
    'The stack Rotation does it, once books_app is there'],
  ['Service', 'Execution', any('*'), NO_RESOURCE],
  ['Service', 'Execution', arn('logs', 'log-group:/PREFIX/task:*'), STREAMS],
  ['Service', 'TaskRole', any('*'), NO_RESOURCE, exec],
  ['Service', 'CodeDeployRole', any('*'), NO_RESOURCE],
  ['Service', 'CodeDeployRole',
    arn('ecs', 'task-set/PREFIX/PREFIX-service/*'), 'Made by CodeDeploy'],
  ...['listener', 'listener-rule'].map((kind): Finding => ['Service',
    'CodeDeployRole', arn('elasticloadbalancing', `${kind}/app/PREFIX-alb/*`),
    NAMES]),
  ['Service', 'HookRole', any('*'), NO_RESOURCE, hook],
  ['Service', 'HookRole', arn('logs', 'log-group:/aws/lambda/PREFIX-hook:*'),
    STREAMS, hook],
  ['Service', 'Task', 'AwsSolutions-ECS2', ENVIRONMENT],
  ['Service', 'AccessLogs', 'AwsSolutions-S1', 'It holds access logs'],
  ['Service', 'Nlb', 'AwsSolutions-ELB2',
    'A TCP listener has no access logs; the ALB behind it has'],
  ['Api', 'Api', 'AwsSolutions-APIG2',
    'booksd validates and answers in the words that clients know'],
  ['Api', 'LogRole', 'AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::' +
    'aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs]',
  'One role for all APIs of the region, so AWS\'s policy for that'],
  ['Ops', 'ChatRole', any('*'), NO_RESOURCE],
  ['Bastion', 'Host', 'AwsSolutions-EC29',
    'It holds nothing: to replace it is the cure'],
];

export function acknowledge(stacks: readonly BooksStack[]): void {
  for (const stack of stacks)
    for (const [name, construct, rule, reason, when] of FINDINGS) {
      const there = name === stack.node.id &&
        stack.node.tryFindChild(construct);
      if (!there || (when !== undefined && !when(stack.config)))
        continue;
      const id = rule.replaceAll('PREFIX', stack.config.prefix);
      Validations.of(there).acknowledge({ id: `AwsSolutions::${id}`, reason });
    }
}
