/*
 * What a release may do, and what a rollback may do.  They differ in two
 * things: only a release pushes images and runs migrations, and only a
 * rollback changes the deployment group, because a rollback has to work while
 * the alarm that stops deployments is firing.
 */
import type { BooksStack, Policy } from './stack';
import { allow } from './stack';

export function deploymentArns(stack: BooksStack): {
  application: string; group: string;
} {
  return {
    application: stack.arn('codedeploy', `application:${stack.named('app')}`),
    group: stack.arn('codedeploy', `deploymentgroup:${stack.named('app')}/` +
      stack.named('group')),
  };
}

function common(stack: BooksStack): Policy[] {
  const { application, group } = deploymentArns(stack);
  const { prefix } = stack.config;
  return [
    allow(['ecr:BatchGetImage', 'ecr:DescribeImages',
      'ecr:DescribeImageScanFindings'], stack.arn('ecr',
      `repository/${prefix}`)),
    allow(['codedeploy:CreateDeployment', 'codedeploy:GetDeployment',
      'codedeploy:GetDeploymentGroup', 'codedeploy:ListDeployments',
      'codedeploy:StopDeployment'], group),
    allow(['codedeploy:GetApplicationRevision',
      'codedeploy:RegisterApplicationRevision'], application),
    allow(['codedeploy:GetDeploymentConfig'],
      stack.arn('codedeploy', 'deploymentconfig:*')),
    // ECS knows no resource for these two.
    allow(['ecs:RegisterTaskDefinition', 'ecs:DescribeTaskDefinition'], '*'),
    allow(['ecs:DescribeServices'],
      stack.arn('ecs', `service/${prefix}/${stack.named('service')}`)),
    allow(['iam:PassRole'],
      ['execution', 'task'].map((role) => stack.roleArn(role)),
      { StringEquals: { 'iam:PassedToService': 'ecs-tasks.amazonaws.com' } }),
    // Dynamic scaling rests while a deployment runs.
    allow(['application-autoscaling:DescribeScalableTargets'], '*'),
    allow(['application-autoscaling:RegisterScalableTarget'],
      stack.arn('application-autoscaling', 'scalable-target/*'),
      {
        StringEquals: {
          'application-autoscaling:service-namespace': 'ecs',
          'application-autoscaling:scalable-dimension':
            'ecs:service:DesiredCount',
        },
      }),
  ];
}

export function releaseStatements(stack: BooksStack): Policy[] {
  const { prefix } = stack.config;
  const cluster = stack.arn('ecs', `cluster/${prefix}`);
  return [
    ...common(stack),
    allow(['ecr:GetAuthorizationToken'], '*'),
    allow(['ecr:BatchCheckLayerAvailability', 'ecr:CompleteLayerUpload',
      'ecr:GetDownloadUrlForLayer', 'ecr:InitiateLayerUpload', 'ecr:PutImage',
      'ecr:UploadLayerPart'], stack.arn('ecr', `repository/${prefix}`)),
    allow(['ecs:RunTask'],
      stack.arn('ecs', `task-definition/${stack.named('migrate')}:*`),
      { ArnEquals: { 'ecs:cluster': cluster } }),
    allow(['ecs:DescribeTasks', 'ecs:StopTask'],
      stack.arn('ecs', `task/${prefix}/*`)),
    allow(['iam:PassRole'],
      ['migrate-execution', 'migrate-task'].map((r) => stack.roleArn(r)),
      { StringEquals: { 'iam:PassedToService': 'ecs-tasks.amazonaws.com' } }),
    allow(['cloudformation:DescribeStacks'],
      ['network', 'data'].map((id) =>
        stack.arn('cloudformation', `stack/${stack.named(id)}/*`))),
  ];
}

export function rollbackStatements(stack: BooksStack): Policy[] {
  const { group } = deploymentArns(stack);
  return [
    ...common(stack),
    allow(['codedeploy:UpdateDeploymentGroup'], group),
    allow(['iam:PassRole'], stack.roleArn('codedeploy'),
      { StringEquals: { 'iam:PassedToService': 'codedeploy.amazonaws.com' } }),
  ];
}
