/*
 * What may be asked through each endpoint of the VPC.  Only this account's
 * members, only the actions and resources that somebody here needs.
 */
import { Aws } from 'aws-cdk-lib';
import type { Config } from './config';
import { allow, type BooksStack, type Policy, policy } from './stack';

export interface Endpoint {
  readonly id: string;
  readonly service: string;
}

export function endpoints(config: Config): Endpoint[] {
  return [
    { id: 'EcrApi', service: 'ecr.api' },
    { id: 'EcrDocker', service: 'ecr.dkr' },
    { id: 'S3', service: 's3' },
    { id: 'Secrets', service: 'secretsmanager' },
    { id: 'Logs', service: 'logs' },
    ...(config.exec ? [{ id: 'Messages', service: 'ssmmessages' }] : []),
    ...(config.hook ? [{ id: 'CodeDeploy', service: 'codedeploy' }] : []),
  ];
}

export const EXEC_ACTIONS = [
  'ssmmessages:CreateControlChannel', 'ssmmessages:CreateDataChannel',
  'ssmmessages:OpenControlChannel', 'ssmmessages:OpenDataChannel',
];

const PULL_ACTIONS = [
  'ecr:BatchCheckLayerAvailability', 'ecr:BatchGetImage',
  'ecr:GetDownloadUrlForLayer',
];

/* Single-user rotation, with RDS's own secret never in question. */
const ROTATION_ACTIONS = [
  'secretsmanager:DescribeSecret', 'secretsmanager:GetSecretValue',
  'secretsmanager:PutSecretValue', 'secretsmanager:UpdateSecretVersionStage',
];

export function endpointPolicy(
  stack: BooksStack, endpoint: Endpoint): Policy {
  const own = { StringEquals: { 'aws:PrincipalAccount': Aws.ACCOUNT_ID } };
  const repository =
    stack.arn('ecr', `repository/${stack.config.prefix}`);
  const anyone = (statement: Policy): Policy =>
    ({ ...statement, Principal: '*' });
  const mine = (actions: string[], resources: string | string[]): Policy =>
    anyone(allow(actions, resources, own));

  switch (endpoint.service) {
    case 'ecr.api':
    case 'ecr.dkr':
      return policy(
        mine(['ecr:GetAuthorizationToken'], '*'),
        mine(PULL_ACTIONS, repository));
    case 's3': // layers of images; not ours, so no condition on the account
      return policy(anyone(allow(['s3:GetObject'],
        `arn:${Aws.PARTITION}:s3:::prod-${Aws.REGION}` +
        '-starport-layer-bucket/*')));
    case 'secretsmanager':
      /*
       * By account, action and secret, not by role: the role of the hosted
       * rotation has a generated name.  RDS gives its secret a name of its
       * own, which begins so.
       */
      return policy(
        mine(ROTATION_ACTIONS, stack.secretArn('books_app')),
        mine(['secretsmanager:DescribeSecret', 'secretsmanager:GetSecretValue'],
          stack.arn('secretsmanager', 'secret:rds!db-*')),
        mine(['secretsmanager:GetRandomPassword'], '*'));
    case 'logs':
      return policy(mine(['logs:CreateLogStream', 'logs:PutLogEvents'],
        [stack.arn('logs', `log-group:/${stack.config.prefix}/*`),
          stack.arn('logs',
            `log-group:/aws/lambda/${stack.config.prefix}-*`)]));
    case 'ssmmessages':
      return policy(mine(EXEC_ACTIONS, '*'));
    case 'codedeploy':
      return policy(mine(
        ['codedeploy:PutLifecycleEventHookExecutionStatus'],
        stack.arn('codedeploy', `deploymentgroup:${stack.named('app')}/` +
          stack.named('group'))));
    default:
      throw new Error(`no policy for ${endpoint.service}`);
  }
}
