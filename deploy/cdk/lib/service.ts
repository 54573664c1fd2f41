/*
 * The tasks: roles, the first task definition, the service that CodeDeploy
 * owns from then on, its scaling and its deployments.
 */
import { CfnOutput } from 'aws-cdk-lib';
import * as scaling from 'aws-cdk-lib/aws-applicationautoscaling';
import * as ecs from 'aws-cdk-lib/aws-ecs';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as logs from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';
import { addBalancer, type Balancer } from './balancer';
import type { Config } from './config';
import { EMF, serviceTask } from './container';
import { type DataStack, decrypt, startStatements } from './data';
import { addDeployment } from './deployment';
import { EXEC_ACTIONS } from './endpoints';
import { taskPort } from './hops';
import type { NetworkStack } from './network';
import { allow, BooksStack, policy, trust } from './stack';

const COOLDOWN = 60;

export class ServiceStack extends BooksStack {
  readonly balancer: Balancer;

  constructor(
    scope: Construct, config: Config, private readonly network: NetworkStack,
    private readonly data: DataStack) {
    super(scope, 'Service', config, 'tasks, load balancers, deployments');
    this.balancer = addBalancer(this, network);
    const service = this.addService(this.addTask());
    this.addScaling(service);
    addDeployment(this, network, this.balancer, service);
    new CfnOutput(this, 'ServiceName', { value: service.attrName });
  }

  private addTask(): ecs.CfnTaskDefinition {
    const injected = this.config.task.secret === 'injected';
    const secret = [
      allow(['secretsmanager:GetSecretValue'], this.data.secret.ref),
      decrypt(this.data.key.attrArn),
    ];
    const group = new logs.CfnLogGroup(this, 'TaskLog', {
      logGroupName: `/${this.config.prefix}/task`,
      retentionInDays: 30,
    });
    const execution = new iam.CfnRole(this, 'Execution', {
      roleName: this.named('execution'),
      assumeRolePolicyDocument: trust('ecs-tasks.amazonaws.com'),
      policies: [{
        policyName: 'start',
        policyDocument: policy(...startStatements(this, 'task'),
          ...(injected ? secret : [])),
      }],
    });
    const own = [
      ...(injected ? [] : secret),
      ...(this.config.exec ? [allow(EXEC_ACTIONS, '*')] : []),
    ];
    const role = new iam.CfnRole(this, 'TaskRole', {
      roleName: this.named('task'),
      assumeRolePolicyDocument: trust('ecs-tasks.amazonaws.com'),
      ...(own.length > 0 ? {
        policies: [{ policyName: 'run', policyDocument: policy(...own) }],
      } : {}),
    });
    const definition = new ecs.CfnTaskDefinition(this, 'Task',
      serviceTask(this.config, {
        ...this.data.place(),
        digest: this.parameter('ImageDigest'),
        architecture: this.parameter('CpuArchitecture'),
      }) as ecs.CfnTaskDefinitionProps);
    for (const before of [group, execution, role])
      definition.addResourceDependency(before);
    return definition;
  }

  /*
   * By the family's name alone, without a count: an update of this template
   * must never change what CodeDeploy and the scaling have set since.
   */
  private addService(definition: ecs.CfnTaskDefinition): ecs.CfnService {
    const service = new ecs.CfnService(this, 'Service', {
      serviceName: this.named('service'),
      cluster: this.data.cluster.ref,
      taskDefinition: this.named('task'),
      launchType: 'FARGATE',
      platformVersion: '1.4.0',
      deploymentController: { type: 'CODE_DEPLOY' },
      healthCheckGracePeriodSeconds: 30,
      enableExecuteCommand: this.config.exec,
      propagateTags: 'SERVICE',
      loadBalancers: [{
        containerName: 'booksd',
        containerPort: taskPort(this.config),
        targetGroupArn: this.balancer.targets.Blue.ref,
      }],
      networkConfiguration: {
        awsvpcConfiguration: {
          assignPublicIp: 'DISABLED',
          subnets: this.network.subnetIds('app'),
          securityGroups: [this.network.groupId('task')],
        },
      },
    });
    service.addResourceDependency(definition);
    service.addResourceDependency(this.balancer.listeners.production);
    service.addResourceDependency(this.balancer.listeners.test);
    return service;
  }

  private addScaling(service: ecs.CfnService): void {
    const { config } = this;
    const target = new scaling.CfnScalableTarget(this, 'Scaling', {
      serviceNamespace: 'ecs',
      scalableDimension: 'ecs:service:DesiredCount',
      resourceId: `service/${config.prefix}/${this.named('service')}`,
      minCapacity: config.scaling.min,
      maxCapacity: config.scaling.max,
    });
    target.addResourceDependency(service);
    const track = (
      id: string, targetValue: number, metric: Partial<
        scaling.CfnScalingPolicy
          .TargetTrackingScalingPolicyConfigurationProperty>): void => {
      new scaling.CfnScalingPolicy(this, id, {
        policyName: this.named(id.toLowerCase()),
        policyType: 'TargetTrackingScaling',
        scalingTargetId: target.ref,
        targetTrackingScalingPolicyConfiguration: {
          targetValue,
          scaleInCooldown: COOLDOWN,
          scaleOutCooldown: COOLDOWN,
          ...metric,
        },
      });
    };
    track('ScaleCpu', config.scaling.cpu, {
      predefinedMetricSpecification: {
        predefinedMetricType: 'ECSServiceAverageCPUUtilization',
      },
    });
    track('ScaleBusy', config.scaling.busy, {
      customizedMetricSpecification: {
        namespace: EMF.namespace,
        metricName: EMF.busy,
        statistic: 'Average',
        dimensions: busyDimensions(this),
      },
    });
  }
}

export function busyDimensions(stack: BooksStack) {
  const values = {
    Cluster: stack.config.prefix, Service: stack.named('service'),
  };
  return EMF.dimensions.map((name) => ({ name, value: values[name] }));
}
