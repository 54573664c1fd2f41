/*
 * Blue/green by CodeDeploy: ten per cent for five minutes, then the rest, and
 * back at once when an alarm fires.
 */
import * as codedeploy from 'aws-cdk-lib/aws-codedeploy';
import type * as ecs from 'aws-cdk-lib/aws-ecs';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import { alarm, alarmName, SERVICE_ALARMS } from './alarms';
import type { Balancer } from './balancer';
import { deploymentArns } from './deployers';
import { HOOK_SOURCE } from './hook';
import type { NetworkStack } from './network';
import { allow, BooksStack, policy, trust, trustPlain } from './stack';

export function addDeployment(
  stack: BooksStack, network: NetworkStack, balancer: Balancer,
  service: ecs.CfnService): void {
  addAlarms(stack, balancer);
  const application = new codedeploy.CfnApplication(stack, 'Application', {
    applicationName: stack.named('app'),
    computePlatform: 'ECS',
  });
  const group = new codedeploy.CfnDeploymentGroup(stack, 'Group', {
    applicationName: application.ref,
    deploymentGroupName: stack.named('group'),
    serviceRoleArn: addRole(stack).attrArn,
    deploymentConfigName: 'CodeDeployDefault.ECSCanary10Percent5Minutes',
    deploymentStyle: {
      deploymentType: 'BLUE_GREEN',
      deploymentOption: 'WITH_TRAFFIC_CONTROL',
    },
    blueGreenDeploymentConfiguration: {
      deploymentReadyOption: { actionOnTimeout: 'CONTINUE_DEPLOYMENT' },
      terminateBlueInstancesOnDeploymentSuccess: {
        action: 'TERMINATE', terminationWaitTimeInMinutes: 10,
      },
    },
    ecsServices: [{
      clusterName: stack.config.prefix, serviceName: service.attrName,
    }],
    loadBalancerInfo: {
      targetGroupPairInfoList: [{
        targetGroups: [
          { name: balancer.targets.Blue.attrTargetGroupName },
          { name: balancer.targets.Green.attrTargetGroupName },
        ],
        prodTrafficRoute: {
          listenerArns: [balancer.listeners.production.ref],
        },
        testTrafficRoute: { listenerArns: [balancer.listeners.test.ref] },
      }],
    },
    alarmConfiguration: {
      enabled: true,
      ignorePollAlarmFailure: false,
      alarms: SERVICE_ALARMS.map((id) => ({ name: alarmName(stack, id) })),
    },
    autoRollbackConfiguration: {
      enabled: true,
      events: ['DEPLOYMENT_FAILURE', 'DEPLOYMENT_STOP_ON_ALARM',
        'DEPLOYMENT_STOP_ON_REQUEST'],
    },
  });
  for (const id of SERVICE_ALARMS)
    group.node.addDependency(stack.node.findChild(id));
  if (stack.config.hook)
    addHook(stack, network, balancer);
}

function addAlarms(stack: BooksStack, balancer: Balancer): void {
  for (const colour of ['Blue', 'Green'] as const) {
    const dimensions = {
      LoadBalancer: balancer.alb.attrLoadBalancerFullName,
      TargetGroup: balancer.targets[colour].attrTargetGroupFullName,
    };
    const namespace = 'AWS/ApplicationELB';
    alarm(stack, `${colour}Errors`, {
      namespace, metricName: 'HTTPCode_Target_5XX_Count', dimensions,
      threshold: 10, above: true, periods: 1,
    });
    alarm(stack, `${colour}Slow`, {
      namespace, metricName: 'TargetResponseTime', dimensions,
      extendedStatistic: 'p99', threshold: 2, above: true, periods: 3,
    });
    alarm(stack, `${colour}Unhealthy`, {
      namespace, metricName: 'UnHealthyHostCount', dimensions,
      statistic: 'Maximum', threshold: 0, above: true, periods: 3,
    });
  }
}

/* AWSCodeDeployRoleForECS, narrowed to what is here. */
function addRole(stack: BooksStack): iam.CfnRole {
  const { prefix } = stack.config;
  const service = `service/${prefix}/${stack.named('service')}`;
  const listener = (kind: string): string =>
    stack.arn('elasticloadbalancing',
      `${kind}/app/${stack.named('alb')}/*`);
  return new iam.CfnRole(stack, 'CodeDeployRole', {
    roleName: stack.named('codedeploy'),
    assumeRolePolicyDocument: trustPlain('codedeploy.amazonaws.com'),
    policies: [{
      policyName: 'deploy',
      policyDocument: policy(
        allow(['ecs:CreateTaskSet', 'ecs:DeleteTaskSet', 'ecs:DescribeServices',
          'ecs:UpdateServicePrimaryTaskSet'],
        [stack.arn('ecs', service),
          stack.arn('ecs', service.replace('service/', 'task-set/') + '/*')]),
        allow(['elasticloadbalancing:DescribeTargetGroups',
          'elasticloadbalancing:DescribeListeners',
          'elasticloadbalancing:DescribeRules',
          'cloudwatch:DescribeAlarms'], '*'),
        allow(['elasticloadbalancing:ModifyListener'], listener('listener')),
        allow(['elasticloadbalancing:ModifyRule'], listener('listener-rule')),
        allow(['iam:PassRole'],
          ['execution', 'task'].map((name) => stack.roleArn(name)),
          { StringEquals: {
            'iam:PassedToService': 'ecs-tasks.amazonaws.com' } }),
        ...(stack.config.hook ? [allow(['lambda:InvokeFunction'],
          stack.arn('lambda', `function:${stack.named('hook')}`))] : [])),
    }],
  });
}

/* Asks the green tasks through the test listener before anybody else does. */
function addHook(
  stack: BooksStack, network: NetworkStack, balancer: Balancer): void {
  const name = stack.named('hook');
  const log = new logs.CfnLogGroup(stack, 'HookLog', {
    logGroupName: `/aws/lambda/${name}`,
    retentionInDays: 30,
  });
  const role = new iam.CfnRole(stack, 'HookRole', {
    roleName: stack.named('hook'),
    assumeRolePolicyDocument: trust('lambda.amazonaws.com'),
    policies: [{
      policyName: 'run',
      policyDocument: policy(
        allow(['codedeploy:PutLifecycleEventHookExecutionStatus'],
          deploymentArns(stack).group),
        allow(['logs:CreateLogStream', 'logs:PutLogEvents'],
          stack.arn('logs', `log-group:/aws/lambda/${name}:*`)),
        // For its interfaces; EC2 knows no resource for these.
        allow(['ec2:CreateNetworkInterface', 'ec2:DeleteNetworkInterface',
          'ec2:DescribeNetworkInterfaces', 'ec2:DescribeSubnets',
          'ec2:AssignPrivateIpAddresses', 'ec2:UnassignPrivateIpAddresses'],
        '*')),
    }],
  });
  const hook = new lambda.CfnFunction(stack, 'Hook', {
    functionName: name,
    description: 'Asks the green tasks before any traffic reaches them',
    runtime: 'nodejs24.x',
    handler: 'index.handler',
    architectures: ['arm64'],
    timeout: 60,
    memorySize: 256,
    role: role.attrArn,
    code: { zipFile: HOOK_SOURCE },
    environment: {
      variables: {
        ALB: balancer.alb.attrDnsName,
        NAME: stack.parameter('CertificateName'),
        VERIFY: stack.config.api.certificate === 'issued' ? '1' : '0',
      },
    },
    vpcConfig: {
      subnetIds: network.subnetIds('app'),
      securityGroupIds: [network.groupId('hook')],
    },
  });
  hook.addResourceDependency(log);
}
